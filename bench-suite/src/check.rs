//! An answer is verified before it is timed: a few steps beside the reference.
//!
//! The adapters are small, since the reference is slow. Some sides are odd, so that blocks and
//! vectors of any width have a rest; the largest adapter is cut into many blocks and shared by
//! threads. They have the row's method, moments, threads and rank.

use lora_pro_conformance::run::{AdapterTensors, Run};
use lora_pro_core::{Backend, DType, Error, Hyper, MatRef, MomentDType};
use lora_pro_reference::ReferenceBackend;
use lora_pro_reference::factors::{Factors, factor_gradients};
use lora_pro_reference::storage::matrix;
use nalgebra::DMatrix;
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
    let mut subject = start(backend, hyper, rank, weights)?;
    let mut expected = start(Box::new(reference), exact, rank, weights)?;
    Ok(Check {
        error: distance(&mut subject, &mut expected)?,
        tolerance,
    })
}

/// The largest distance of a factor of one run from that of the other after the steps, over the way
/// that the other's went.
fn distance(subject: &mut Run, expected: &mut Run) -> Result<f64, Error> {
    let start = factors(expected);
    for t in 0..STEPS {
        step(subject, t)?;
        step(expected, t)?;
    }
    let ends = factors(subject).into_iter().zip(factors(expected));
    let errors = ends
        .zip(start)
        .map(|((x, y), start)| (x - &y).norm() / (start - y).norm());
    Ok(errors.max_by(f64::total_cmp).unwrap_or(0.0))
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

/// The adapters on one backend.
fn start(
    backend: Box<dyn Backend>,
    hyper: Hyper,
    rank: usize,
    weights: &[[usize; 2]],
) -> Result<Run, Error> {
    let mut run = Run::new(backend, hyper)?;
    for (&[m, n], k) in weights.iter().zip(0..) {
        let spec = spec(format!("check.{k}"), [m, n], rank.min(64));
        let factors = Factors {
            a: numbers(spec.r, n, 2 * k)?,
            b: numbers(m, spec.r, 2 * k + 1)?,
            s: spec.s(),
        };
        run.add_adapter(spec, &factors)?;
    }
    Ok(run)
}

/// A step along the gradients that autograd would give for the same g, at the run's own factors.
fn step(run: &mut Run, t: u64) -> Result<(), Error> {
    let mut gradients = Vec::new();
    for (adapter, k) in run.adapters.iter().zip(0..) {
        let factors = adapter.factors();
        let g = numbers(factors.b.nrows(), factors.a.ncols(), 1000 + 10 * t + k)?;
        gradients.push(factor_gradients(&factors, &g));
    }
    run.step_all(&gradients)?;
    Ok(())
}

/// Numbers of size 1.
fn numbers(rows: usize, cols: usize, seed: u64) -> Result<DMatrix<f64>, Error> {
    let numbers = fill::numbers(rows * cols, 1.0, seed);
    Ok(matrix(&MatRef::new(&numbers, [rows, cols])?))
}

/// A and B of each adapter.
fn factors(run: &Run) -> Vec<DMatrix<f64>> {
    let factors = run.adapters.iter().map(AdapterTensors::factors);
    factors.flat_map(|factors| [factors.a, factors.b]).collect()
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
        let run = |hyper| start(Box::new(ReferenceBackend::new()), hyper, 4, &WEIGHTS[..1]);
        let [mut subject, mut expected] = [subject, expected].map(|hyper| run(hyper).unwrap());
        distance(&mut subject, &mut expected).unwrap()
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
