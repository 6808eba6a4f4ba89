//! Parameters in one pass through a model.

use std::cell::RefCell;

use candle_core::{Module, Result, Tensor};
use lora_pro_candle::linear;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::fused::{self, Heads, Kept};
use crate::parameters::Parameters;

/// One pass: a model's parameters and, in training, dropout.
#[derive(Debug)]
pub struct Forward<'p> {
    parameters: &'p Parameters,
    dropout: Option<Dropout>,
}

/// Dropout of a training pass.
#[derive(Debug)]
struct Dropout {
    lora: f64,
    random: RefCell<ChaCha8Rng>,
}

impl<'p> Forward<'p> {
    /// A pass that evaluates: nothing is dropped.
    pub fn evaluation(parameters: &'p Parameters) -> Self {
        Forward {
            parameters,
            dropout: None,
        }
    }

    /// A pass that trains. `lora` is the probability of [`Forward::linear`]'s dropout before A; what
    /// is dropped follows from `seed` and `step` alone, so that a resumed run drops the same.
    pub fn training(parameters: &'p Parameters, lora: f64, seed: u64, step: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(step);
        let random = RefCell::new(random);
        Forward {
            parameters,
            dropout: Some(Dropout { lora, random }),
        }
    }

    /// The parameters.
    pub fn parameters(&self) -> &'p Parameters {
        self.parameters
    }

    /// y = x W0' + b, and + s (dropout(x) A') B' where the module has an adapter; x is ... x n.
    pub fn linear(&self, module: &str, x: &Tensor) -> Result<Tensor> {
        match (self.parameters.adapter(module), &self.dropout) {
            (None, _) => linear(&self.parameters.linear(module)?, x),
            (Some(layer), Some(dropout)) if dropout.lora > 0.0 => {
                layer.forward_parts(x, &self.dropout(x, dropout.lora)?)
            }
            (Some(layer), _) => layer.forward(x),
        }
    }

    /// Rows of `<module>.weight`, one for each entry of `ids`: shape of `ids`, then the width.
    pub fn embedding(&self, module: &str, ids: &Tensor) -> Result<Tensor> {
        let weight = self.parameters.tensor(&format!("{module}.weight"))?;
        let rows = weight.index_select(&ids.flatten_all()?, 0)?;
        rows.reshape([ids.dims(), &[weight.dim(1)?]].concat())
    }

    /// (x - mean) / sqrt(variance + eps) over the last dimension, times weight, plus bias.
    pub fn layer_norm(&self, module: &str, x: &Tensor, eps: f64) -> Result<Tensor> {
        let number = |kind: &str| self.parameters.tensor(&format!("{module}.{kind}"));
        fused::layer_norm(x, number("weight")?, number("bias")?, eps)
    }

    /// x / sqrt(mean of squares + eps) over the last dimension, times weight.
    pub fn rms_norm(&self, module: &str, x: &Tensor, eps: f64) -> Result<Tensor> {
        let weight = self.parameters.tensor(&format!("{module}.weight"))?;
        fused::rms_norm(x, weight, eps)
    }

    /// In training, zeroes each entry with probability `p` and divides the others by 1 - p.
    pub fn dropout(&self, x: &Tensor, p: f64) -> Result<Tensor> {
        match self.kept(x.elem_count(), p) {
            Some(kept) => fused::dropout(x, kept),
            None => Ok(x.clone()),
        }
    }

    /// What dropout with probability `p` keeps of so many entries; `None` where it keeps all.
    fn kept(&self, count: usize, p: f64) -> Option<Kept> {
        let dropout = self.dropout.as_ref().filter(|_| p > 0.0)?;
        Some(Kept::draw(count, p, &mut *dropout.random.borrow_mut()))
    }

    /// Attention of queries, N x T x h d, to keys and values, N x S x g d; `dropout` is the probability with
    /// which a training pass drops an entry of the softmax.
    pub(crate) fn attention(
        &self,
        [q, k, v]: [&Tensor; 3],
        heads: &Heads,
        dropout: f64,
    ) -> Result<Tensor> {
        let (rows, queries, _) = q.dims3()?;
        let count = rows * heads.count * queries * k.dim(1)?;
        fused::attention([q, k, v], heads, self.kept(count, dropout))
    }
}
