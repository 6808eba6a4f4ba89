//! How updates reach 16-bit parameters.

use lora_pro_conformance::sample::{CaseSpec, rounded_pair};
use lora_pro_core::{DType, HostTensor, Hyper, Method, Rounding};
use lora_pro_reference::storage::{host, matrix};

use super::{Batch, Gradients, Make, adapter, hyper, in_memory};

/// The same numbers in f32, where the start and all gradients are representable in `short`.
struct Twins {
    short: Batch,
    long: Batch,
    spec: CaseSpec,
}

impl Twins {
    fn start(make: Make, spec: CaseSpec, hyper: Hyper) -> Self {
        let short = Batch::start(make, &[spec], hyper).expect("valid");
        let long = CaseSpec {
            dtype: DType::F32,
            ..spec
        };
        let mut long = Batch::start(make, &[long], hyper).expect("valid");
        let (to, from) = (&mut long.members[0], &short.members[0]);
        to.a = host(&matrix(&from.a.view()), DType::F32);
        to.b = host(&matrix(&from.b.view()), DType::F32);
        Twins { short, long, spec }
    }

    /// Gradients that do not depend on where the factors have come to.
    fn gradients(&self, t: u64) -> [Gradients; 2] {
        let pair = rounded_pair(
            self.spec.dtype,
            &self.spec.gradients(&self.spec.factors(), t),
        );
        [self.spec.dtype, DType::F32].map(|dtype| vec![in_memory(&pair, dtype)])
    }

    fn step(&mut self, t: u64) {
        let [short, long] = self.gradients(t);
        self.short.step_with(&short).expect("a step");
        self.long.step_with(&long).expect("a step");
    }

    /// Short and long A, then B.
    fn factors(&self) -> [[&HostTensor; 2]; 2] {
        let (x, y) = (&self.short.members[0], &self.long.members[0]);
        [[&x.a, &y.a], [&x.b, &y.b]]
    }
}

/// 16-bit parameters with master copies are f32 ones seen through the short type, and the copies are
/// f32's factors.
pub fn master(make: Make, spec: CaseSpec, method: Method, steps: u64) {
    let dtype = spec.dtype;
    let hyper = Hyper {
        rounding: Rounding::Master,
        ..hyper(method)
    };
    let mut twins = Twins::start(make, spec, hyper);
    for t in 1..=steps {
        if t == 3 {
            // Somebody else changes one entry of A; in f32 to the same value.
            twins.short.members[0].a.view_mut().set(1, 2, 0.75);
            twins.long.members[0].a.view_mut().set(1, 2, 0.75);
        }
        twins.step(t);
        let saved = twins.short.saved().expect("saves");
        for ([short, long], copy) in twins.factors().into_iter().zip(["a", "b"]) {
            let rounded = host(&matrix(&long.view()), dtype);
            assert!(*short == rounded, "{method} {dtype} {copy} step {t}");
            let key = |name: &&String| name.ends_with(&format!("master_{copy}"));
            let name = saved.tensors.keys().find(key).expect("there is a copy");
            assert!(
                saved.tensors[name].bytes == long.bytes(),
                "{method} {dtype} {name}"
            );
        }
    }
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

/// A learning rate at which updates of factors of order 0.03, where the spacing is u / 32, are far
/// below half a unit in the last place.
pub fn small_lr(dtype: DType) -> f64 {
    dtype.unit_roundoff() * 1e-3
}

/// Up or down at random: each entry is a neighbour of f32's, and the mean is right within five
/// standard errors, in itself, outward from zero and along the update.
pub fn unbiased(make: Make, spec: CaseSpec, method: Method, lr: f64) {
    let dtype = spec.dtype;
    let stochastic = Hyper {
        rounding: Rounding::Stochastic,
        lr,
        weight_decay: 0.0,
        ..hyper(method)
    };
    let mut twins = Twins::start(make, spec, stochastic);
    let old = twins.factors().map(|[_, long]| matrix(&long.view()));
    twins.step(1);
    let mut rounded = 0;
    for ([short, long], old) in twins.factors().into_iter().zip(&old) {
        let (found, exact) = (matrix(&short.view()), matrix(&long.view()));
        let (mut sums, mut variance) = ([0.0; 3], 0.0);
        for ((found, exact), old) in found.iter().zip(&exact).zip(old) {
            let [below, above] = neighbours(dtype, *exact);
            let near = *found == below || *found == above;
            assert!(near, "{method} {dtype}: {found} for {exact}");
            let error = found - exact;
            let along = (exact - old).signum();
            sums[0] += error;
            sums[1] += error * exact.signum();
            sums[2] += error * along;
            variance += (above - exact) * (exact - below);
        }
        if variance == 0.0 {
            continue;
        }
        rounded += 1;
        let errors = sums.map(|sum| sum / f64::sqrt(variance));
        let right = errors.iter().all(|errors| errors.abs() < 5.0);
        assert!(right, "{method} {dtype}: {errors:?} standard errors");
    }
    let moved = if spec.rank_b == 0 { 1 } else { 2 };
    assert_eq!(rounded, moved, "{method} {dtype}: nothing to round");
}

/// Which entries of A and of B' moved in a step, for constant factors and gradients.
fn moved(batch: &mut Batch, member: usize) -> [Vec<bool>; 2] {
    for member in &mut batch.members {
        for factor in [&mut member.a, &mut member.b] {
            *factor = HostTensor::from_fn(DType::Bf16, factor.shape(), |_, _| CONSTANT);
        }
    }
    let specs = batch.specs.clone();
    let ones = |rows, cols| HostTensor::from_fn(DType::Bf16, [rows, cols], |_, _| 1.0);
    let gradients = specs
        .iter()
        .map(|spec| (ones(spec.r, spec.n), ones(spec.m, spec.r)))
        .collect();
    batch.step_with(&gradients).expect("a step");
    let factors = batch.members[member].factors();
    let [a, b] = [factors.a, factors.b.transpose()];
    [a, b].map(|after| after.iter().map(|x| *x != CONSTANT).collect())
}

const CONSTANT: f64 = 1.5;

/// The random numbers are others in each step, for each adapter, for each of its factors and for
/// each entry; a run has the same ones again.
pub fn differs(make: Make) {
    let spec = adapter(4000, 4000, 8, DType::Bf16);
    let specs = [spec, CaseSpec { seed: 7, ..spec }];
    let hyper = Hyper {
        rounding: Rounding::Stochastic,
        // 1.5 has the spacing 2^-7; a step of lora's AdamW on equal gradients is lr.
        lr: 0.25 * 2f64.powi(-7),
        weight_decay: 0.0,
        ..hyper(Method::Lora)
    };
    let start = || Batch::start(make, &specs, hyper).expect("valid");
    let mut batch = start();
    let first = moved(&mut batch, 0);
    let [second, _] = moved(&mut batch, 0);
    assert_eq!(first, moved(&mut start(), 0), "a run repeats itself");
    let [other, _] = moved(&mut start(), 1);
    let [a, b] = first;
    let rotated = |by: usize| [&a[by..], &a[..by]].concat();
    let patterns = [
        ("adapter", other),
        ("step", second),
        ("factor", b),
        ("entry of a column", rotated(1)),
        ("entry of a row", rotated(spec.r)),
    ];
    for (what, pattern) in patterns {
        independent(&a, &pattern, what);
    }
}

/// Where chance 1/4 and chance 1/4 are independent, both happen with 1/16, within five standard
/// errors.
pub fn independent(x: &[bool], y: &[bool], what: &str) {
    let n = x.len() as f64;
    for pattern in [x, y] {
        let share = pattern.iter().filter(|moved| **moved).count() as f64 / n;
        let error = (0.25 * 0.75 / n).sqrt();
        assert!((share - 0.25).abs() < 5.0 * error, "{what}: {share} moved");
    }
    let both = x.iter().zip(y).filter(|(x, y)| **x && **y).count() as f64 / n;
    let error = (15.0 / 256.0 / n).sqrt();
    assert!(
        (both - 1.0 / 16.0).abs() < 5.0 * error,
        "{what}: {both} moved in both"
    );
}
