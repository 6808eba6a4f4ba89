//! Activation functions, by the names that configurations have for them.

use candle_core::{Result, Tensor};
use serde::Deserialize;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Activation {
    /// x times the normal distribution's function of x.
    #[serde(rename = "gelu")]
    Gelu,
    /// GELU with tanh in place of the distribution's function.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh")]
    GeluTanh,
    /// max(x, 0).
    #[serde(rename = "relu")]
    Relu,
    /// x / (1 + exp(-x)).
    #[serde(rename = "silu", alias = "swish")]
    Silu,
}

impl Activation {
    /// The function of each entry.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
        }
    }
}
