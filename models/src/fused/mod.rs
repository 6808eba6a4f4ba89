//! Operations of candle's graph that do in one pass what candle's own do in several, each with a
//! backward pass of its own: a graph of candle's keeps the result of every single operation. They take
//! f32 on the CPU.

mod activation;
mod attention;
mod cross_entropy;
mod dropout;
mod matrix;
mod norm;

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor};

pub(crate) use activation::{activate, gate};
pub(crate) use attention::{Heads, attention};
pub(crate) use cross_entropy::linear_cross_entropy;
pub(crate) use dropout::{Kept, dropout};
pub(crate) use norm::{layer_norm, rms_norm};

/// Entries of a task for one thread, about.
const TASK: usize = 1 << 14;

/// The entries of a tensor without gaps, for reading.
fn read(x: &Tensor) -> Result<impl Deref<Target = [f32]>> {
    let (storage, layout) = x.storage_and_layout();
    let range = range(layout)?;
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(Entries { storage, range }),
        _ => candle_core::bail!(
            "a model computes in f32 on the CPU, but a tensor is {:?} on {:?}",
            x.dtype(),
            x.device().location()
        ),
    }
}

/// A part of a storage of f32 on the CPU, which `S` keeps from being written.
struct Entries<S> {
    storage: S,
    range: Range<usize>,
}

impl<S: Deref<Target = Storage>> Deref for Entries<S> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(all)) => &all[self.range.clone()],
            _ => &[],
        }
    }
}

/// The entries of what an operation is given.
fn entries<'s>(storage: &'s CpuStorage, layout: &Layout) -> Result<&'s [f32]> {
    Ok(&storage.as_slice()?[range(layout)?])
}

fn range(layout: &Layout) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => candle_core::bail!("a tensor {:?} has gaps", layout.dims()),
    }
}

/// The sum of a function of x's and y's entries: several partial sums side by side, which the compiler can
/// do by vectors.
fn sum_of(x: &[f32], y: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (x, y) in xs.iter().zip(ys) {
        for (sum, (&x, &y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += term(x, y);
        }
    }
    let rest = x_rest.iter().zip(y_rest).map(|(&x, &y)| term(x, y));
    sums.into_iter().chain(rest).sum()
}

const LANES: usize = 16;

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;

    pub(super) fn random(dims: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1.0, dims, &Device::Cpu).unwrap()
    }

    pub(super) fn var(dims: &[usize]) -> Var {
        Var::from_tensor(&random(dims)).unwrap()
    }

    pub(super) fn difference(one: &Tensor, other: &Tensor) -> f32 {
        assert_eq!(one.dims(), other.dims());
        let apart = (one - other).unwrap().abs().unwrap().flatten_all().unwrap();
        apart.max(0).unwrap().to_scalar().unwrap()
    }

    /// Value and gradients of an operation against those of candle's operations.
    pub(super) fn compare(vars: &[&Var], own: &Tensor, composed: &Tensor) {
        let apart = difference(own, composed);
        assert!(apart < 1e-5, "{apart}");
        let probe = random(own.dims());
        let loss = |y: &Tensor| (y * &probe).unwrap().sum_all().unwrap();
        let [own, composed] = [own, composed].map(|y| loss(y).backward().unwrap());
        for var in vars {
            let apart = difference(own.get(var).unwrap(), composed.get(var).unwrap());
            assert!(apart < 2e-5, "{apart}");
        }
    }

    /// The gradient of sum(y * probe) along a random direction against differences of its values.
    pub(super) fn check_slope(x: &Var, y: impl Fn() -> Tensor) {
        let (probe, direction) = (random(y().dims()), random(x.dims()));
        let loss = || {
            let y = (y() * &probe).unwrap();
            y.to_dtype(DType::F64).unwrap().sum_all().unwrap()
        };
        let gradients = (y() * &probe).unwrap().sum_all().unwrap();
        let gradients = gradients.backward().unwrap();
        let along = (gradients.get(x).unwrap() * &direction).unwrap();
        let along = along.sum_all().unwrap().to_scalar::<f32>().unwrap() as f64;
        let (start, h) = (x.copy().unwrap(), 1e-2);
        let [above, below] = [h, -h].map(|h| {
            x.set(&(&start + (&direction * h).unwrap()).unwrap())
                .unwrap();
            loss().to_scalar::<f64>().unwrap()
        });
        x.set(&start).unwrap();
        let slope = (above - below) / (2.0 * h);
        let size = 1.0 + along.abs();
        assert!((slope - along).abs() < 1e-2 * size, "{slope} {along}");
    }

    #[test]
    fn sums_of_any_length() {
        for length in [0, 1, 15, 16, 17, 50] {
            let x: Vec<f32> = (0..length).map(|k| k as f32).collect();
            let y = vec![2.0; length];
            let expected = 2.0 * x.iter().sum::<f32>();
            assert_eq!(sum_of(&x, &y, |x, y| x * y), expected);
        }
    }

    #[test]
    fn what_is_not_f32_or_has_gaps_is_refused() {
        let x = random(&[3, 4]);
        let error = |x: &Tensor| read(x).err().unwrap().to_string();
        let gaps = error(&x.t().unwrap());
        assert!(gaps.contains("a tensor [4, 3] has gaps"), "{gaps}");
        let half = error(&x.to_dtype(DType::BF16).unwrap());
        assert!(half.contains("a model computes in f32 on the CPU, but a tensor is BF16"));
    }
}
