//! Parameters in one pass through a model. Everything here can be differentiated: candle's fused
//! operations (its softmax, norms and rotary embedding) cannot.

use std::cell::RefCell;

use candle_core::{D, DType, Module, Result, Tensor};
use lora_pro_candle::linear;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let bias = self.parameters.tensor(&format!("{module}.bias"))?;
        self.scaled_to_unit(module, &centred, eps)?
            .broadcast_add(bias)
    }

    /// x / sqrt(mean of squares + eps) over the last dimension, times weight.
    pub fn rms_norm(&self, module: &str, x: &Tensor, eps: f64) -> Result<Tensor> {
        self.scaled_to_unit(module, x, eps)
    }

    fn scaled_to_unit(&self, module: &str, x: &Tensor, eps: f64) -> Result<Tensor> {
        let size = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
        let weight = self.parameters.tensor(&format!("{module}.weight"))?;
        x.broadcast_div(&size)?
            .broadcast_mul(&weight.to_dtype(x.dtype())?)
    }

    /// In training, zeroes each entry with probability `p` and divides the others by 1 - p.
    pub fn dropout(&self, x: &Tensor, p: f64) -> Result<Tensor> {
        let Some(dropout) = &self.dropout else {
            return Ok(x.clone());
        };
        if p <= 0.0 {
            return Ok(x.clone());
        }
        let below = (p * (u32::MAX as f64 + 1.0)) as u32;
        let kept = (1.0 / (1.0 - p)) as f32;
        let mut random = dropout.random.borrow_mut();
        let factors: Vec<f32> = (0..x.elem_count())
            .map(|_| if random.next_u32() < below { 0.0 } else { kept })
            .collect();
        let factors = Tensor::from_vec(factors, x.shape(), x.device())?;
        x.mul(&factors.to_dtype(x.dtype())?)
    }

    /// Softmax over the last dimension.
    pub fn softmax(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::softmax(&x.to_dtype(DType::F32)?, D::Minus1)?.to_dtype(x.dtype())
    }
}
