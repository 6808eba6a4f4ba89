//! How updates reach 16-bit parameters: master copies and stochastic rounding.

use lora_pro_core::{DType, Error, Factor, HostTensor, Hyper, Method, Rounding, StateKind};
use lora_pro_reference::storage::{host, matrix};

use crate::sample::{CaseSpec, rounded_pair};
use crate::support::batch::{BackendFn, Batch, Gradients, adapter, hyper, in_memory, state_key};

/// Steps of an ordinary trajectory.
pub const STEPS: u64 = 5;

/// A small adapter for trajectories, and one with enough entries for means.
pub fn specs(dtype: DType) -> [CaseSpec; 2] {
    [adapter(9, 70, 3, dtype), adapter(300, 500, 16, dtype)]
}

/// The 16-bit types.
pub const SHORT: [DType; 2] = [DType::Bf16, DType::F16];

/// The same numbers in f32, where the start and all gradients are representable in `short`.
struct PrecisionPair {
    short: Batch,
    long: Batch,
    spec: CaseSpec,
}

impl PrecisionPair {
    fn start(make: BackendFn, spec: CaseSpec, hyper: Hyper) -> Result<Self, Error> {
        let short = Batch::start(make, &[spec], hyper)?;
        let long = CaseSpec {
            dtype: DType::F32,
            ..spec
        };
        let mut long = Batch::start(make, &[long], hyper)?;
        let (to, from) = (&mut long.run.adapters[0], &short.run.adapters[0]);
        to.a = host(&matrix(&from.a.view()), DType::F32);
        to.b = host(&matrix(&from.b.view()), DType::F32);
        Ok(PrecisionPair { short, long, spec })
    }

    /// Gradients that do not depend on where the factors have come to.
    fn gradients(&self, t: u64) -> [Gradients; 2] {
        let pair = rounded_pair(
            self.spec.dtype,
            &self.spec.gradients(&self.spec.factors(), t),
        );
        [self.spec.dtype, DType::F32].map(|dtype| vec![in_memory(&pair, dtype)])
    }

    fn step(&mut self, t: u64) -> Result<(), Error> {
        let [short, long] = self.gradients(t);
        self.short.step_with(&short)?;
        self.long.step_with(&long)?;
        Ok(())
    }

    /// Short and long A, then B.
    fn factors(&self) -> [[&HostTensor; 2]; 2] {
        let (x, y) = (&self.short.run.adapters[0], &self.long.run.adapters[0]);
        [[&x.a, &y.a], [&x.b, &y.b]]
    }
}

/// bf16 with master copies is f32 seen through bf16, and the copies are f32's factors. What is not so,
/// where something is not.
///
/// # Errors
/// Those of the backend.
pub fn master(
    make: BackendFn,
    spec: CaseSpec,
    method: Method,
    steps: u64,
) -> Result<Option<String>, Error> {
    let dtype = spec.dtype;
    let hyper = hyper(method).rounding(Rounding::MasterCopy);
    let mut pair = PrecisionPair::start(make, spec, hyper)?;
    for t in 1..=steps {
        if t == 3 {
            // The caller changes one entry of A; in f32 to the same value.
            pair.short.run.adapters[0].a.view_mut().set(1, 2, 0.75);
            pair.long.run.adapters[0].a.view_mut().set(1, 2, 0.75);
        }
        pair.step(t)?;
        let saved = pair.short.saved()?;
        for ([short, long], factor) in pair.factors().into_iter().zip(Factor::ALL) {
            let kind = StateKind::Master(factor);
            let copy = saved.tensors.get(&state_key(&spec, kind));
            let follows = *short == host(&matrix(&long.view()), dtype);
            if !follows || copy.is_none_or(|data| data.bytes != long.bytes()) {
                return Ok(Some(format!("{kind} in step {t}")));
            }
        }
    }
    Ok(None)
}

/// The neighbours of x in a short type: the largest number below and the smallest above.
fn neighbours(dtype: DType, x: f64) -> [f64; 2] {
    let near = dtype.round(x);
    if near == x {
        return [x, x];
    }
    // More than half the spacing and less than all of it, at whatever exponent x has, down to that
    // of the smallest normal number.
    let smallest = if dtype == DType::F16 { -14.0 } else { -126.0 };
    let exponent = x.abs().log2().floor().max(smallest);
    let reach = 1.5 * dtype.unit_roundoff() * 2f64.powf(exponent);
    let other = if near < x {
        dtype.round(near + reach)
    } else {
        dtype.round(near - reach)
    };
    [near.min(other), near.max(other)]
}

/// Up or down at random: each entry is a neighbour of f32's, and the mean is right in itself, outward
/// from zero and along the update. The largest of these errors in standard errors; infinite where an
/// entry is no neighbour, or nothing was rounded.
///
/// # Errors
/// Those of the backend.
pub fn stochastic(make: BackendFn, spec: CaseSpec, method: Method, lr: f64) -> Result<f64, Error> {
    let dtype = spec.dtype;
    let stochastic = hyper(method)
        .rounding(Rounding::Stochastic)
        .lr(lr)
        .weight_decay(0.0);
    let mut pair = PrecisionPair::start(make, spec, stochastic)?;
    let old = pair.factors().map(|[_, long]| matrix(&long.view()));
    pair.step(1)?;
    let (mut worst, mut rounded) = (0.0f64, 0);
    for ([short, long], old) in pair.factors().into_iter().zip(&old) {
        let (found, exact) = (matrix(&short.view()), matrix(&long.view()));
        let (mut sums, mut variance) = ([0.0; 3], 0.0);
        for ((found, exact), old) in found.iter().zip(&exact).zip(old) {
            let [below, above] = neighbours(dtype, *exact);
            if *found != below && *found != above {
                return Ok(f64::INFINITY);
            }
            let error = found - exact;
            sums[0] += error;
            sums[1] += error * exact.signum();
            sums[2] += error * (exact - old).signum();
            variance += (above - exact) * (exact - below);
        }
        if variance == 0.0 {
            continue;
        }
        rounded += 1;
        let errors = sums.map(|sum| (sum / f64::sqrt(variance)).abs());
        worst = errors.into_iter().fold(worst, f64::max);
    }
    // Where B = 0, A stays where it is.
    let moved = if spec.rank_b == 0 { 1 } else { 2 };
    Ok(if rounded == moved {
        worst
    } else {
        f64::INFINITY
    })
}

/// A learning rate at which updates of factors of order 0.03, where the spacing is u / 32, are far
/// below half a unit in the last place.
pub fn small_lr(dtype: DType) -> f64 {
    dtype.unit_roundoff() * 1e-3
}
