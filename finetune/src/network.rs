//! A model with its numbers.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use lora_pro_candle::PeftAdapter;
use lora_pro_candle::bridge::{candle_error, to_data};
use lora_pro_core::Error;
use lora_pro_models::{Forward, Input, Model, Parameters};
use serde::{Deserialize, Serialize};

use crate::examples::{Batch, Examples, Metric, Outcome};

/// A model with its numbers.
#[derive(Clone, Debug)]
pub struct Network {
    /// The function.
    pub model: Arc<dyn Model>,
    /// Its numbers.
    pub parameters: Parameters,
}

/// How well a network does on some examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What [`Score::value`] is.
    pub metric: Metric,
    /// At most 1, which is best.
    pub value: f64,
    /// Mean loss.
    pub loss: f64,
    /// For classes, which examples are right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub right: Vec<bool>,
}

impl Score {
    /// Whether its number is higher or, where both are the same, its loss lower.
    pub fn is_better_than(&self, other: &Score) -> bool {
        (self.value, -self.loss) > (other.value, -other.loss)
    }
}

/// Examples that are evaluated at once.
const EVALUATED: usize = 64;

impl Network {
    /// The output for `input` ([`Model::forward`]), nothing dropped.
    pub fn forward(&self, input: &Input) -> Result<Tensor, Error> {
        let pass = Forward::evaluation(&self.parameters);
        self.model.forward(&pass, input).map_err(candle_error)
    }

    /// How it does on a batch, nothing dropped.
    pub(crate) fn outcome(&self, batch: &Batch) -> candle_core::Result<Outcome> {
        let pass = Forward::evaluation(&self.parameters);
        batch.outcome(self.model.as_ref(), &pass)
    }

    /// How well it does on the examples. Rejects an empty set.
    pub fn evaluate(&self, examples: &dyn Examples) -> Result<Score, Error> {
        let mut order: Vec<u32> = (0..examples.len() as u32).collect();
        order.sort_by_key(|&row| examples.length(row as usize));
        let (mut loss, mut count, mut metric) = (0.0, 0, None);
        let mut pairs = Vec::new();
        for rows in order.chunks(EVALUATED) {
            let batch = examples.batch(rows)?;
            let outcome = self.outcome(&batch).map_err(candle_error)?;
            let mean = scalar(&outcome.loss).map_err(candle_error)?;
            loss += mean * batch.target.count() as f64;
            count += batch.target.count();
            metric = Some(batch.target.metric());
            pairs.extend(outcome.pairs);
        }
        let empty = || Error::invalid(examples.name(), "examples", 0, "at least 1");
        let metric = metric.ok_or_else(empty)?;
        let right = match metric {
            Metric::Accuracy => {
                let mut right = vec![false; examples.len()];
                for (&row, [hit, _]) in order.iter().zip(&pairs) {
                    right[row as usize] = *hit == 1.0;
                }
                right
            }
            _ => Vec::new(),
        };
        let value = match metric {
            Metric::Correlation => correlation(&pairs),
            _ => pairs.iter().map(|[hit, _]| hit).sum::<f64>() / pairs.len().max(1) as f64,
        };
        Ok(Score {
            metric,
            value,
            loss: loss / count.max(1) as f64,
            right,
        })
    }

    /// Writes its tensors as a safetensors file.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        self.parameters.save(path)
    }

    /// The network with an adapter on its modules ([`Parameters::with_adapter`]).
    pub fn adapted(&self, adapter: &PeftAdapter) -> Result<Self, Error> {
        let saved: Vec<&str> = adapter.saved().map(|(name, _)| name).collect();
        self.check_not_shared(&saved)?;
        Ok(Network {
            model: self.model.clone(),
            parameters: self.parameters.with_adapter(adapter)?,
        })
    }

    /// The network with its adapters merged into the weights.
    pub fn merged(&self) -> Result<Self, Error> {
        Ok(Network {
            model: self.model.clone(),
            parameters: self.parameters.merged().map_err(candle_error)?,
        })
    }

    /// Rejects tensors of a module that the model uses in two places: PEFT would train a copy in one of
    /// them.
    pub(crate) fn check_not_shared(&self, saved: &[&str]) -> Result<(), Error> {
        let Some(shared) = self.model.shared() else {
            return Ok(());
        };
        let weight = format!("{shared}.weight");
        match saved.contains(&weight.as_str()) {
            false => Ok(()),
            true => Err(Error::invalid(
                "the adapter's configuration",
                "modules_to_save",
                shared,
                "without it: the model ties its embedding to its output layer",
            )),
        }
    }

    /// Numbers in the linear modules' weights ([`Model::linear_modules`]).
    pub fn linear_weights(&self) -> Result<usize, Error> {
        let modules = self.model.linear_modules();
        let count = |module: &String| {
            let weight = self.parameters.tensor(&format!("{module}.weight"));
            weight
                .map(|weight| weight.elem_count())
                .map_err(candle_error)
        };
        modules.iter().map(count).sum()
    }

    /// CRC-32 of all tensors and their names.
    pub fn checksum(&self) -> Result<u32, Error> {
        let mut hasher = crc32fast::Hasher::new();
        for (name, tensor) in self.parameters.tensors() {
            hasher.update(name.as_bytes());
            hasher.update(&to_data(tensor)?.bytes);
        }
        Ok(hasher.finalize())
    }
}

/// A loss as a number.
pub(crate) fn scalar(loss: &Tensor) -> candle_core::Result<f64> {
    loss.to_dtype(candle_core::DType::F64)?.to_scalar()
}

/// Pearson's correlation; 0 where one side is constant.
pub fn correlation(pairs: &[[f64; 2]]) -> f64 {
    let count = pairs.len().max(1) as f64;
    let mean = |side: usize| pairs.iter().map(|pair| pair[side]).sum::<f64>() / count;
    let means = [mean(0), mean(1)];
    let moment = |i: usize, j: usize| {
        let product = |pair: &[f64; 2]| (pair[i] - means[i]) * (pair[j] - means[j]);
        pairs.iter().map(product).sum::<f64>()
    };
    let sizes = (moment(0, 0) * moment(1, 1)).sqrt();
    match sizes > 0.0 {
        true => moment(0, 1) / sizes,
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::correlation;

    #[test]
    fn correlations() {
        assert_eq!(correlation(&[[1., 2.], [2., 4.], [3., 6.]]), 1.0);
        assert_eq!(correlation(&[[1., 3.], [2., 2.], [3., 1.]]), -1.0);
        assert_eq!(correlation(&[[1., 3.], [1., 2.]]), 0.0);
    }
}
