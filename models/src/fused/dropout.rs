//! Dropout.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rand::Rng;

use super::{entries, read};

/// Which entries are kept, and what they are multiplied by.
#[derive(Debug)]
pub(crate) struct Kept {
    entries: Vec<bool>,
    factor: f32,
}

impl Kept {
    /// Each of `count` entries is dropped with probability `p`; the others are divided by 1 - p.
    pub(crate) fn draw(count: usize, p: f64, random: &mut impl Rng) -> Self {
        let below = (p * (u32::MAX as f64 + 1.0)) as u32;
        let entries = (0..count).map(|_| random.next_u32() >= below).collect();
        let factor = (1.0 / (1.0 - p)) as f32;
        Kept { entries, factor }
    }

    /// Multiplies those from `start` on.
    pub(crate) fn apply(&self, x: &mut [f32], start: usize) {
        for (x, &kept) in x.iter_mut().zip(&self.entries[start..]) {
            *x = if kept { *x * self.factor } else { 0.0 };
        }
    }

    fn applied(&self, x: &[f32], shape: &Shape) -> Result<Vec<f32>> {
        if x.len() != self.entries.len() {
            candle_core::bail!("dropout of {} entries in {shape:?}", self.entries.len());
        }
        let mut y = x.to_vec();
        self.apply(&mut y, 0);
        Ok(y)
    }
}

/// x with what is not kept at 0.
pub(crate) fn dropout(x: &Tensor, kept: Kept) -> Result<Tensor> {
    x.contiguous()?.apply_op1(kept)
}

impl CustomOp1 for Kept {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.applied(entries(x, layout)?, layout.shape())?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let g = g.contiguous()?;
        let gradient = self.applied(&read(&g)?, x.shape())?;
        Tensor::from_vec(gradient, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::tests::{compare, var};
    use super::*;

    #[test]
    fn dropout_is_a_product_with_its_factors() {
        let kept = Kept::draw(1000, 0.25, &mut ChaCha8Rng::seed_from_u64(0));
        let factors: Vec<f32> = kept
            .entries
            .iter()
            .map(|&kept| if kept { 4.0 / 3.0 } else { 0.0 })
            .collect();
        let dropped = factors.iter().filter(|&&factor| factor == 0.0).count();
        assert!((200..300).contains(&dropped), "{dropped}");
        let x = var(&[20, 50]);
        let factors = Tensor::from_vec(factors, (20, 50), x.device()).unwrap();
        let composed = (x.as_tensor() * factors).unwrap();
        compare(&[&x], &dropout(&x, kept).unwrap(), &composed);
    }
}
