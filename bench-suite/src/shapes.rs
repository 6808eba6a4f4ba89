//! The models whose adapters are stepped, as data: `models/*.toml`.

use lora_pro_core::Error;
use serde::Deserialize;

/// The adapters of a model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// In words.
    pub what: String,
    /// How often `adapters` are repeated.
    pub layers: usize,
    /// The adapters of one layer.
    pub adapters: Vec<Adapter>,
}

/// The weight under one adapter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Name within the layer.
    pub name: String,
    /// Out features.
    pub m: usize,
    /// In features.
    pub n: usize,
}

/// Every model that a row can name.
const MODELS: &[(&str, &str)] = &[
    ("square-4096", include_str!("../models/square-4096.toml")),
    ("llama-2-7b", include_str!("../models/llama-2-7b.toml")),
];

impl ModelShape {
    /// The model called `name`.
    pub fn named(name: &str) -> Result<Self, Error> {
        let Some((_, text)) = MODELS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = MODELS.iter().map(|(known, _)| *known).collect();
            let expected = format!("one of {}", known.join(" "));
            return Err(Error::invalid("the row", "model", name, expected));
        };
        toml::from_str(text)
            .map_err(|error| Error::invalid(name, "the model", error.message(), "valid TOML"))
    }

    /// With sides and layers divided by `divisor`: what a quick run steps.
    pub fn shrunk(self, divisor: usize) -> Self {
        let side = |k: usize| (k / divisor).max(1);
        let adapters = self.adapters.into_iter().map(|adapter| Adapter {
            m: side(adapter.m),
            n: side(adapter.n),
            ..adapter
        });
        ModelShape {
            layers: side(self.layers),
            adapters: adapters.collect(),
            ..self
        }
    }

    /// Name, m and n of every adapter.
    pub fn weights(&self) -> Vec<(String, [usize; 2])> {
        let layer = |k: usize| {
            self.adapters
                .iter()
                .map(move |a| (format!("layers.{k}.{}", a.name), [a.m, a.n]))
        };
        (0..self.layers).flat_map(layer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_is_readable() {
        for (name, _) in MODELS {
            assert!(!ModelShape::named(name).unwrap().weights().is_empty());
        }
        let error = ModelShape::named("gpt").unwrap_err().to_string();
        assert!(error.contains("square-4096 llama-2-7b"), "{error}");
    }

    /// 78,080 rows and columns a layer: the numbers by hand.
    #[test]
    fn llama_has_224_adapters() {
        let weights = ModelShape::named("llama-2-7b").unwrap().weights();
        assert_eq!(weights.len(), 224);
        let sides: usize = weights.iter().map(|(_, [m, n])| m + n).sum();
        assert_eq!(sides, 32 * (4 * 8192 + 3 * 15104));
    }
}
