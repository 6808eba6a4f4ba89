//! Image encoders, as transformers' `ViTForImageClassification`: Dosovitskiy et al., "An image is worth
//! 16x16 words", <https://arxiv.org/abs/2010.11929>.

use candle_core::{Result, Tensor};
use candle_nn::Linear;
use lora_pro_candle::linear;
use serde::Deserialize;

use crate::activation::Activation;
use crate::forward::Forward;
use crate::fused::Heads;
use crate::model::{Input, Model};
use crate::pretrained::{Pretrained, Shapes, check_layers, check_multiple, check_probability};

/// What is used of a ViT's `config.json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct VitConfig {
    /// Width of a patch's vector.
    pub hidden_size: usize,
    /// Layers of the encoder.
    pub num_hidden_layers: usize,
    /// Heads of the attention.
    pub num_attention_heads: usize,
    /// Width between a layer's two maps.
    pub intermediate_size: usize,
    /// Height and width of an image.
    pub image_size: usize,
    /// Height and width of a patch.
    pub patch_size: usize,
    /// Channels of an image.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Added to the variance in the layer norms.
    #[serde(default = "tiny")]
    pub layer_norm_eps: f64,
    /// Between a layer's two maps.
    #[serde(default = "gelu")]
    pub hidden_act: Activation,
    /// Whether query, key and value have biases.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// Probability of dropout after embeddings and after a layer's maps.
    #[serde(default)]
    pub hidden_dropout_prob: f64,
    /// Probability of dropout after the attention's softmax.
    #[serde(default)]
    pub attention_probs_dropout_prob: f64,
}

fn three() -> usize {
    3
}

fn tiny() -> f64 {
    1e-12
}

fn gelu() -> Activation {
    Activation::Gelu
}

fn yes() -> bool {
    true
}

impl VitConfig {
    /// Says what does not fit.
    pub fn validate(&self) -> std::result::Result<(), String> {
        let heads = ("num_attention_heads", self.num_attention_heads);
        check_multiple(("hidden_size", self.hidden_size), heads)?;
        let patch = ("patch_size", self.patch_size);
        check_multiple(("image_size", self.image_size), patch)?;
        check_probability("hidden_dropout_prob", self.hidden_dropout_prob)?;
        let attention = self.attention_probs_dropout_prob;
        check_probability("attention_probs_dropout_prob", attention)?;
        check_layers(self.num_hidden_layers)
    }

    fn patches(&self) -> usize {
        let side = self.image_size / self.patch_size;
        side.saturating_mul(side)
    }
}

/// An image encoder whose first vector goes to a classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Vit {
    config: VitConfig,
    outputs: usize,
}

/// The head's name.
const CLASSIFIER: &str = "classifier";
/// The norm after the layers.
const NORM: &str = "vit.layernorm";
/// The vector that stands before those of the patches.
const FIRST: &str = "vit.embeddings.cls_token";
/// A vector for each place.
const PLACES: &str = "vit.embeddings.position_embeddings";
/// The map of a patch's pixels.
const PATCHES: &str = "vit.embeddings.patch_embeddings.projection";
/// Linear maps of a layer, in the order of the pass.
const MAPS: [&str; 6] = [
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
];
/// Norms of a layer: before the attention, and before the two maps.
const NORMS: [&str; 2] = ["layernorm_before", "layernorm_after"];

impl Vit {
    /// An encoder with a classifier of so many outputs. Says what does not fit in the configuration.
    pub fn new(config: VitConfig, outputs: usize) -> std::result::Result<Self, String> {
        config.validate()?;
        Ok(Vit { config, outputs })
    }

    /// The configuration.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// The first vector and one for each patch, with those of their places; N x (1 + patches) x H.
    fn embed(&self, pass: &Forward<'_>, pixels: &Tensor) -> Result<Tensor> {
        let (rows, channels, height, width) = pixels.dims4()?;
        let (size, patch) = (self.config.image_size, self.config.patch_size);
        if [channels, height, width] != [self.config.num_channels, size, size] {
            candle_core::bail!(
                "an image is {channels} x {height} x {width}, but the model takes {} x {size} x {size}",
                self.config.num_channels
            );
        }
        // A convolution whose stride is its size is a linear map of each patch.
        let side = size / patch;
        let patches = pixels
            .reshape(vec![rows, channels, side, patch, side, patch])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((rows, side * side, channels * patch * patch))?;
        let kernel = pass.parameters().linear(PATCHES)?;
        let weight = kernel.weight().flatten(1, 3)?;
        let vectors = linear(&Linear::new(weight, kernel.bias().cloned()), &patches)?;

        let own = |name| pass.parameters().tensor(name)?.to_dtype(pixels.dtype());
        let first = own(FIRST)?.broadcast_as((rows, 1, self.config.hidden_size))?;
        let all = Tensor::cat(&[&first, &vectors], 1)?.broadcast_add(&own(PLACES)?)?;
        pass.dropout(&all, self.config.hidden_dropout_prob)
    }

    /// x + attention(norm(x)), then x + two maps of norm(x); N x T x H.
    fn layer(&self, pass: &Forward<'_>, index: usize, x: Tensor) -> Result<Tensor> {
        let config = &self.config;
        let map = |part: &str, x: &Tensor| pass.linear(&layer_name(index, part), x);
        let norm = |part: &str, x: &Tensor| {
            pass.layer_norm(&layer_name(index, part), x, config.layer_norm_eps)
        };
        let drop = |x: &Tensor| pass.dropout(x, config.hidden_dropout_prob);
        let [query, key, value, mixed, up, down] = MAPS;

        let normed = norm(NORMS[0], &x)?;
        let (q, k, v) = (
            map(query, &normed)?,
            map(key, &normed)?,
            map(value, &normed)?,
        );
        let heads = Heads::alike(config.num_attention_heads);
        let dropout = config.attention_probs_dropout_prob;
        let attended = pass.attention([&q, &k, &v], &heads, dropout)?;
        let x = (x + drop(&map(mixed, &attended)?)?)?;

        let inner = config.hidden_act.apply(&map(up, &norm(NORMS[1], &x)?)?)?;
        x + drop(&map(down, &inner)?)?
    }
}

impl Model for Vit {
    fn linear_modules(&self) -> Vec<String> {
        let layers = 0..self.config.num_hidden_layers;
        let maps = layers.flat_map(|index| MAPS.map(|part| layer_name(index, part)));
        maps.collect()
    }

    fn head(&self) -> Option<&str> {
        Some(CLASSIFIER)
    }

    fn forward(&self, pass: &Forward<'_>, input: &Input) -> Result<Tensor> {
        let mut x = self.embed(pass, input.pixels()?)?;
        for index in 0..self.config.num_hidden_layers {
            x = self.layer(pass, index, x)?;
        }
        let first = x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        let normed = pass.layer_norm(NORM, &first, self.config.layer_norm_eps)?;
        pass.linear(CLASSIFIER, &normed)
    }
}

impl Pretrained for Vit {
    fn shapes(&self) -> Shapes {
        let config = &self.config;
        let (width, inner, patch) = (
            config.hidden_size,
            config.intermediate_size,
            config.patch_size,
        );
        let mut shapes = Shapes::default();
        shapes.tensor(FIRST, [1, 1, width]);
        shapes.tensor(PLACES, [1, config.patches().saturating_add(1), width]);
        shapes.weight(PATCHES, [width, config.num_channels, patch, patch]);
        shapes.tensor(&format!("{PATCHES}.bias"), [width]);
        shapes.norm(NORM, width);
        for index in 0..config.num_hidden_layers {
            for part in MAPS {
                let [m, n] = match part {
                    "intermediate.dense" => [inner, width],
                    "output.dense" => [width, inner],
                    _ => [width, width],
                };
                let module = layer_name(index, part);
                match config.qkv_bias || !part.starts_with("attention.attention") {
                    true => shapes.linear(&module, [m, n]),
                    false => shapes.weight(&module, [m, n]),
                }
            }
            for part in NORMS {
                shapes.norm(&layer_name(index, part), width);
            }
        }
        shapes.new_linear(CLASSIFIER, [self.outputs, width]);
        shapes
    }

    /// Files of a bare `ViTModel` lack the prefix.
    fn name(&self, in_file: &str) -> String {
        match in_file.split_once('.') {
            Some(("embeddings" | "encoder" | "layernorm", _)) => format!("vit.{in_file}"),
            _ => in_file.to_string(),
        }
    }
}

fn layer_name(index: usize, part: &str) -> String {
    format!("vit.encoder.layer.{index}.{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |field: &str, value: serde_json::Value| {
            let mut config = serde_json::json!({
                "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 8, "image_size": 8, "patch_size": 4,
            });
            config[field] = value;
            Vit::new(serde_json::from_value(config).unwrap(), 2).unwrap_err()
        };
        assert_eq!(
            refused("patch_size", 3.into()),
            "image_size is 8, but it must be a multiple of patch_size = 3"
        );
        assert_eq!(
            refused("hidden_dropout_prob", 1.0.into()),
            "hidden_dropout_prob is 1, but it must be in [0, 1)"
        );
    }
}
