//! An answer is verified before it is timed: a few steps beside the reference.
//!
//! The adapters are small, since the reference is slow. Some sides are odd, so that blocks and
//! vectors of any width have a rest; the largest adapter is cut into many blocks and shared by
//! threads. They have the row's method, moments, threads and rank.

use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Backend, Config, DType, Error, Hyper, MatMut, MatRef,
    MomentDType, Optimizer,
};
use lora_pro_reference::ReferenceBackend;
use serde::{Deserialize, Serialize};

use crate::fill;
use crate::size::Size;
use crate::work::{Job, spec};

/// Out and in features of the adapters; a quick run leaves out the last.
const WEIGHTS: [[usize; 2]; 3] = [[96, 80], [203, 157], [1030, 517]];

/// Steps that are compared.
const STEPS: u64 = 3;

/// How far a backend is from the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The largest distance of a factor from the reference's after three steps, over the way that
    /// the reference's went: Frobenius norms.
    pub error: f64,
    /// What it may be.
    pub tolerance: f64,
}

impl Check {
    /// True where the answer is right. A NaN is not.
    pub fn holds(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Steps `backend` beside the reference.
pub fn check(job: &Job, backend: Box<dyn Backend>, size: Size) -> Result<Check, Error> {
    let reference = ReferenceBackend::new();
    let known = reference.manifest().state_dtypes.contains(&DType::U8);
    let (moments, tolerance) = comparable(job.hyper.moment_dtype, known);
    let rank = job.specs.iter().map(|spec| spec.r).max().unwrap_or(1);
    let hyper = job.hyper.lr(0.01);
    let exact = hyper.moment_dtype(moments);
    let weights = match size {
        Size::Full => &WEIGHTS[..],
        Size::Quick => &WEIGHTS[..2],
    };
    let mut subject = Run::new(backend, hyper, rank, weights)?;
    let mut expected = Run::new(Box::new(reference), exact, rank, weights)?;
    let start = expected.factors();
    for t in 0..STEPS {
        subject.step(t)?;
        expected.step(t)?;
    }
    let factors = subject.factors().into_iter().zip(expected.factors());
    let errors = factors
        .zip(start)
        .map(|((x, y), start)| distance(&x, &y) / distance(&start, &y));
    Ok(Check {
        error: errors.max_by(f64::total_cmp).unwrap_or(0.0),
        tolerance,
    })
}

/// The reference's moments to compare with, and the tolerance.
///
/// In f32, rounding is multiplied by the square of condition numbers of about 20: 1e-4 at worst. A
/// wrong formula changes the first digit. Short moments are rounded by both, and differ where one
/// of the two is just beside a tie. Where the reference has no 8-bit moments, f32 moments are the
/// right answer, from which 8 bits are as far as they are.
fn comparable(moments: MomentDType, reference_has_8_bit: bool) -> (MomentDType, f64) {
    match moments {
        MomentDType::EightBit if !reference_has_8_bit => (MomentDType::F32, 0.25),
        MomentDType::EightBit => (moments, 0.05),
        MomentDType::Bf16 => (moments, 0.01),
        _ => (moments, 1e-3),
    }
}

/// One backend's adapters.
struct Run {
    optimizer: Optimizer,
    adapters: Vec<Pair>,
}

/// One adapter's factors, row-major.
struct Pair {
    spec: AdapterSpec,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Run {
    fn new(
        backend: Box<dyn Backend>,
        hyper: Hyper,
        rank: usize,
        weights: &[[usize; 2]],
    ) -> Result<Self, Error> {
        let mut optimizer = Optimizer::new(backend, Config::from(hyper))?;
        let mut adapters = Vec::new();
        for (k, [m, n]) in weights.iter().copied().enumerate() {
            let spec = spec(format!("check.{k}"), [m, n], rank.min(64));
            optimizer.add_adapter(spec.clone())?;
            let seed = 2 * k as u64;
            adapters.push(Pair {
                a: fill::numbers(spec.r * n, 1.0, seed),
                b: fill::numbers(m * spec.r, 1.0, seed + 1),
                spec,
            });
        }
        Ok(Run {
            optimizer,
            adapters,
        })
    }

    /// A step along the gradients that autograd would give for the same g, at the own factors.
    fn step(&mut self, t: u64) -> Result<(), Error> {
        let gradients = self.adapters.iter().enumerate();
        let gradients: Vec<_> = gradients
            .map(|(k, pair)| pair.gradients(1000 + 10 * t + k as u64))
            .collect();
        let mut io = Vec::new();
        for (k, (pair, (grad_a, grad_b))) in self.adapters.iter_mut().zip(&gradients).enumerate() {
            let ([r, n], [m, _]) = (pair.spec.a_shape(), pair.spec.b_shape());
            io.push(AdapterIo::new(
                AdapterId::from_index(k),
                MatMut::new(&mut pair.a, [r, n])?,
                MatMut::new(&mut pair.b, [m, r])?,
                MatRef::new(grad_a, [r, n])?,
                MatRef::new(grad_b, [m, r])?,
            ));
        }
        self.optimizer.step(&mut io)?;
        Ok(())
    }

    fn factors(&self) -> Vec<Vec<f32>> {
        let both = |pair: &Pair| [pair.a.clone(), pair.b.clone()];
        self.adapters.iter().flat_map(both).collect()
    }
}

impl Pair {
    /// gA = s B'g and gB = s g A' in f64, rounded to f32.
    fn gradients(&self, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let AdapterSpec { m, n, r, .. } = self.spec;
        let s = self.spec.s();
        let g = fill::numbers(m * n, 1.0, seed);
        let (mut grad_a, mut grad_b) = (vec![0.0f64; r * n], vec![0.0f64; m * r]);
        for i in 0..m {
            for k in 0..r {
                let b = s * f64::from(self.b[i * r + k]);
                for j in 0..n {
                    let g = f64::from(g[i * n + j]);
                    grad_a[k * n + j] += b * g;
                    grad_b[i * r + k] += s * g * f64::from(self.a[k * n + j]);
                }
            }
        }
        let rounded = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect();
        (rounded(grad_a), rounded(grad_b))
    }
}

fn distance(x: &[f32], y: &[f32]) -> f64 {
    let square = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).powi(2);
    x.iter().zip(y).map(square).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use lora_pro_core::Method;

    use super::*;
    use crate::rows::Work;

    fn job(method: Method, moments: MomentDType) -> Job {
        let work = Work {
            model: "square-4096".into(),
            method,
            rank: 4,
            moments,
            threads: None,
        };
        Job::new(&work, 64, 1).unwrap()
    }

    #[test]
    fn the_reference_is_right() {
        let check = check(
            &job(Method::Factored, MomentDType::F32),
            Box::new(ReferenceBackend::new()),
            Size::Quick,
        );
        assert_eq!(check.unwrap().error, 0.0);
    }

    /// How far one hyper-parameter set is from another after the steps of a check.
    fn error(subject: Hyper, expected: Hyper) -> f64 {
        let run = |hyper| Run::new(Box::new(ReferenceBackend::new()), hyper, 4, &WEIGHTS[..1]);
        let [mut subject, mut expected] = [subject, expected].map(|hyper| run(hyper).unwrap());
        let start = expected.factors();
        for t in 0..STEPS {
            subject.step(t).unwrap();
            expected.step(t).unwrap();
        }
        let [x, y] = [subject.factors(), expected.factors()];
        distance(&x[0], &y[0]) / distance(&start[0], &y[0])
    }

    /// What bf16 does to moments is over the tolerance of f32, and far under a wrong formula.
    #[test]
    fn short_moments_are_told_from_long_ones() {
        let hyper = |moments| job(Method::Full, moments).hyper;
        let error = error(hyper(MomentDType::Bf16), hyper(MomentDType::F32));
        assert!(error > 1e-3 && error < 0.1, "{error}");
    }

    #[test]
    fn a_wrong_x_is_found() {
        let right = job(Method::Efficient, MomentDType::F32).hyper;
        let x = lora_pro_core::XChoice::Zero;
        assert!(error(right.x(x), right) > 20.0 * comparable(MomentDType::F32, true).1);
    }

    #[test]
    fn nan_is_wrong() {
        let check = Check {
            error: f64::NAN,
            tolerance: 1.0,
        };
        assert!(!check.holds());
    }
}
