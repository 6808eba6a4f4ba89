//! A frozen linear layer with an adapter.

use candle_core::{Module, Result, Tensor};
use candle_nn::Linear;

/// y = x W0' + b + s (x A') B'.
///
/// ```
/// use candle_core::{Device::Cpu, Module, Tensor};
/// use candle_nn::Linear;
/// use lora_pro_finetune::LoraLinear;
/// # fn main() -> candle_core::Result<()> {
/// let base = Linear::new(Tensor::new(&[[1f32, 2.], [3., 4.]], &Cpu)?, None);
/// let a = Tensor::new(&[[1f32, 1.]], &Cpu)?;
/// let b = Tensor::new(&[[1f32], [0.]], &Cpu)?;
/// let layer = LoraLinear { base, a, b, s: 10.0 };
/// let x = Tensor::new(&[[1f32, 0.]], &Cpu)?;
/// assert_eq!(layer.forward(&x)?.to_vec2::<f32>()?, [[11., 3.]]);
/// assert_eq!(layer.merged()?.weight().to_vec2::<f32>()?, [[11., 12.], [3., 4.]]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct LoraLinear {
    /// W0, m x n, and the bias.
    pub base: Linear,
    /// A, r x n.
    pub a: Tensor,
    /// B, m x r.
    pub b: Tensor,
    /// The scale s.
    pub s: f64,
}

impl LoraLinear {
    /// The plain layer with W = W0 + s B A.
    pub fn merged(&self) -> Result<Linear> {
        let change = (self.b.matmul(&self.a)? * self.s)?;
        let weight = (self.base.weight() + change)?.detach();
        Ok(Linear::new(weight, self.base.bias().cloned()))
    }
}

impl Module for LoraLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let change = x.matmul(&self.a.t()?)?.matmul(&self.b.t()?)?;
        self.base.forward(x)? + (change * self.s)?
    }
}
