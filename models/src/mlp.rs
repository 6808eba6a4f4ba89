//! Linear layers with GELU between them. Hidden layers are called `layers.0`, `layers.1`, ..., the
//! last one `head`.

use candle_core::{Result, Tensor};

use crate::forward::Forward;
use crate::model::{Input, Model};

/// A multi-layer perceptron.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mlp {
    /// Hidden layers; none is a linear classifier.
    pub hidden: usize,
}

/// The last layer's name.
const HEAD: &str = "head";

impl Model for Mlp {
    fn linear_modules(&self) -> Vec<String> {
        let name = |index| format!("layers.{index}");
        (0..self.hidden).map(name).collect()
    }

    fn head(&self) -> Option<&str> {
        Some(HEAD)
    }

    fn forward(&self, pass: &Forward<'_>, input: &Input) -> Result<Tensor> {
        let mut hidden = input.features()?.clone();
        for module in self.linear_modules() {
            hidden = pass.linear(&module, &hidden)?.gelu_erf()?;
        }
        pass.linear(HEAD, &hidden)
    }
}
