//! A frozen linear layer with a trained adapter.

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::Linear;
use lora_pro_core::{AdapterSpec, Error, Scale};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bridge::{candle_error, dtype};
use crate::linear::{adapted, linear};

/// y = x W0' + b + s (x A') B'.
///
/// ```
/// use candle_core::{Device::Cpu, Module, Tensor};
/// use candle_nn::Linear;
/// use lora_pro_candle::LoraLinear;
/// use lora_pro_core::{AdapterSpec, Scale};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let base = Linear::new(Tensor::new(&[[1f32, 2.], [3., 4.]], &Cpu)?, None);
/// let a = Tensor::new(&[[1f32, 1.]], &Cpu)?;
/// let b = Tensor::new(&[[1f32], [0.]], &Cpu)?;
/// let spec = AdapterSpec::new("q", 2, 2, 1).scale(Scale::Explicit(10.0));
/// let layer = LoraLinear::with_factors(spec, base, &a, &b)?;
/// let x = Tensor::new(&[[1f32, 0.]], &Cpu)?;
/// assert_eq!(layer.forward(&x)?.to_vec2::<f32>()?, [[11., 3.]]);
/// assert_eq!(layer.merged()?.weight().to_vec2::<f32>()?, [[11., 12.], [3., 4.]]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct LoraLinear {
    spec: AdapterSpec,
    base: Linear,
    a: Var,
    b: Var,
}

impl LoraLinear {
    /// An adapter of rank `r` at its start: A uniform in +-1 / sqrt(n) (Kaiming, as PEFT), B zero. Its
    /// type is that of `base`'s weight, but f32 for a weight of 16 bits, as in PEFT. A follows from
    /// `seed` and `name`.
    ///
    /// Rejects a rank or a scale that does not fit.
    pub fn new(
        name: &str,
        base: Linear,
        r: usize,
        scale: Scale,
        seed: u64,
    ) -> std::result::Result<Self, Error> {
        let (m, n) = base.weight().dims2().map_err(candle_error)?;
        let spec = AdapterSpec::new(name, m, n, r).scale(scale);
        spec.validate()?;
        let dtype = Self::factors_dtype(base.weight().dtype());
        let start = || {
            let a = kaiming(&spec, seed)?.to_dtype(dtype)?;
            let b = Tensor::zeros((m, r), dtype, &Device::Cpu)?;
            Ok((a, b))
        };
        let (a, b) = start().map_err(candle_error)?;
        Self::with_factors(spec, base, &a, &b)
    }

    /// An adapter with factors of the caller's own: A, r x n, and B, m x r. Variables are shared with
    /// the caller, other tensors copied.
    ///
    /// Rejects shapes and types that are not the specification's.
    pub fn with_factors(
        spec: AdapterSpec,
        base: Linear,
        a: &Tensor,
        b: &Tensor,
    ) -> std::result::Result<Self, Error> {
        spec.validate()?;
        let spec = spec.dtype(dtype(a)?);
        check_shape(&spec, "W0", base.weight(), [spec.m, spec.n], "m x n")?;
        check_shape(&spec, "A", a, spec.a_shape(), "r x n")?;
        check_shape(&spec, "B", b, spec.b_shape(), "m x r")?;
        if dtype(b)? != spec.dtype {
            let (value, expected) = (dtype(b)?, "the same for A and B");
            return Err(Error::invalid(&spec.subject(), "dtype", value, expected));
        }
        let variable = |factor: &Tensor| Var::from_tensor(factor).map_err(candle_error);
        let (a, b) = (variable(a)?, variable(b)?);
        Ok(LoraLinear { spec, base, a, b })
    }

    /// The type of A and B beside weights of `dtype`, or instead of it: f32 for 16 bits, as in PEFT.
    pub(crate) fn factors_dtype(dtype: DType) -> DType {
        match dtype {
            DType::F16 | DType::BF16 => DType::F32,
            dtype => dtype,
        }
    }

    /// In a group of [`lora_pro_core::Config::groups`].
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.spec = self.spec.group(name);
        self
    }

    /// Name, shape, rank, scale, type and group.
    pub fn spec(&self) -> &AdapterSpec {
        &self.spec
    }

    /// W0, m x n, and the bias: frozen, unless they are variables of the caller's.
    pub fn base(&self) -> &Linear {
        &self.base
    }

    /// A, r x n.
    pub fn a(&self) -> &Var {
        &self.a
    }

    /// B, m x r.
    pub fn b(&self) -> &Var {
        &self.b
    }

    /// The plain layer with W = W0 + s B A, in W0's type.
    pub fn merged(&self) -> Result<Linear> {
        let change = (self.b.matmul(&self.a)? * self.spec.s())?;
        let frozen = self.base.weight();
        let sum = (frozen.to_dtype(change.dtype())? + change)?;
        let weight = sum.to_dtype(frozen.dtype())?.detach();
        Ok(Linear::new(weight, self.base.bias().cloned()))
    }
}

impl LoraLinear {
    /// x W0' + b + s (z A') B': the layer where z is x after dropout. The result has the type of A and
    /// B, as x and z must; W0 may be of another.
    pub fn forward_parts(&self, x: &Tensor, z: &Tensor) -> Result<Tensor> {
        let down = Linear::new(self.a.as_tensor().clone(), None);
        adapted(&self.base, x, &linear(&down, z)?, &self.b, self.spec.s())
    }
}

impl Module for LoraLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_parts(x, x)
    }
}

fn check_shape(
    spec: &AdapterSpec,
    tensor: &'static str,
    given: &Tensor,
    expected: [usize; 2],
    meaning: &'static str,
) -> std::result::Result<(), Error> {
    let (rows, cols) = given.dims2().map_err(candle_error)?;
    if [rows, cols] == expected {
        return Ok(());
    }
    Err(Error::Shape {
        subject: spec.subject(),
        tensor,
        got: [rows, cols],
        expected,
        meaning,
    })
}

/// A in f32, uniform in +-1 / sqrt(n). Each name has its own stream of the seed's random numbers.
fn kaiming(spec: &AdapterSpec, seed: u64) -> Result<Tensor> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream(&spec.name));
    let bound = (spec.n as f32).sqrt().recip();
    let values = (0..spec.r * spec.n).map(|_| random.random_range(-bound..bound));
    Tensor::from_iter(values, &Device::Cpu)?
        .reshape((spec.r, spec.n))?
        .to_dtype(DType::F32)
}

/// FNV-1a: the same on every machine and in every version.
fn stream(name: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, seed: u64) -> LoraLinear {
        let base = Linear::new(
            Tensor::ones((3, 4), DType::F32, &Device::Cpu).unwrap(),
            None,
        );
        LoraLinear::new(name, base, 2, Scale::Alpha(4.0), seed).unwrap()
    }

    #[test]
    fn a_follows_from_seed_and_name_and_b_is_zero() {
        let a = |layer: LoraLinear| layer.a().to_vec2::<f32>().unwrap();
        assert_eq!(a(layer("q", 1)), a(layer("q", 1)));
        assert_ne!(a(layer("q", 1)), a(layer("q", 2)));
        assert_ne!(a(layer("q", 1)), a(layer("k", 1)));
        assert!(a(layer("q", 1)).iter().flatten().all(|x| x.abs() <= 0.5));
        let weight = layer("q", 1).merged().unwrap();
        assert_eq!(weight.weight().to_vec2::<f32>().unwrap(), [[1.0; 4]; 3]);
    }

    #[test]
    fn batches_of_any_number_of_dimensions() {
        let layer = layer("q", 1);
        let x = Tensor::ones((2, 5, 4), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(layer.forward(&x).unwrap().dims(), [2, 5, 3]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let base = layer("q", 1).base().clone();
        let error = LoraLinear::new("q", base.clone(), 4, Scale::Alpha(4.0), 0).unwrap_err();
        let expected = "adapter `q`: r is 4, but it must be at most min(m, n) = 3";
        assert_eq!(error.to_string(), expected);
        let (spec, a) = (AdapterSpec::new("q", 3, 4, 2), layer("q", 1).a().clone());
        let error = LoraLinear::with_factors(spec, base, &a, &a).unwrap_err();
        let expected = "adapter `q`: B is 2 x 4, but m x r needs 3 x 2";
        assert_eq!(error.to_string(), expected);
    }
}
