//! Activation functions, by the names that configurations have for them.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, SQRT_2};

use candle_core::{Result, Tensor};
use serde::Deserialize;

use crate::fused;

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
        fused::activate(self, x)
    }

    /// The function.
    pub(crate) fn value(self, x: f32) -> f32 {
        match self {
            Activation::Gelu => x * normal(x),
            Activation::GeluTanh => 0.5 * x * (1.0 + wide(x).tanh()),
            Activation::Relu => x.max(0.0),
            Activation::Silu => x * sigmoid(x),
        }
    }

    /// The function's derivative.
    pub(crate) fn slope(self, x: f32) -> f32 {
        match self {
            Activation::Gelu => {
                let density = 0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI * (-0.5 * x * x).exp();
                normal(x) + x * density
            }
            Activation::GeluTanh => {
                let tanh = wide(x).tanh();
                let slope = WIDE * (1.0 + 3.0 * CUBE * x * x);
                0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope
            }
            Activation::Relu => f32::from(x > 0.0),
            Activation::Silu => {
                let sigmoid = sigmoid(x);
                sigmoid * (1.0 + x * (1.0 - sigmoid))
            }
        }
    }
}

/// The normal distribution's function.
fn normal(x: f32) -> f32 {
    0.5 * (1.0 + libm::erff(x * FRAC_1_SQRT_2))
}

fn sigmoid(x: f32) -> f32 {
    (1.0 + (-x).exp()).recip()
}

/// sqrt(2 / pi).
const WIDE: f32 = FRAC_2_SQRT_PI / SQRT_2;
/// The cube's weight in the tanh that stands for the normal distribution's function.
const CUBE: f32 = 0.044715;

fn wide(x: f32) -> f32 {
    WIDE * (x + CUBE * x * x * x)
}
