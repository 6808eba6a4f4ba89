//! How updates reach 16-bit parameters: master copies and stochastic rounding.

mod common;

use common::{Batch, METHODS, Make, adapter, cpu, cuda, hyper, reference};
use lora_pro_conformance::rounding::{SHORT, STEPS, master, small_lr, specs, stochastic};
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{DType, HostTensor, Hyper, Method, Rounding};
use lora_pro_reference::storage::matrix;

fn master_copies(make: Make) {
    for dtype in SHORT {
        for method in METHODS {
            let wrong = master(make, specs(dtype)[0], method, STEPS).expect("steps");
            assert_eq!(wrong, None, "{method} {dtype}");
        }
    }
}

#[test]
fn master_copies_on_the_reference() {
    master_copies(&reference);
}

#[test]
fn master_copies_on_the_cpu_backend() {
    master_copies(&cpu);
}

#[test]
fn master_copies_on_the_cuda_backend() {
    master_copies(&cuda);
}

/// In f32 the choice of rounding changes nothing.
#[test]
fn long_parameters_are_rounded_to_nearest() {
    for make in [&cpu as Make, &cuda] {
        rounded_to_nearest(make);
    }
}

fn rounded_to_nearest(make: Make) {
    for rounding in [Rounding::Stochastic, Rounding::Master] {
        let spec = adapter(9, 70, 3, DType::F32);
        let finish = |rounding| {
            let hyper = Hyper {
                rounding,
                ..hyper(Method::Full)
            };
            let batch = Batch::start(make, &[spec], hyper).expect("valid");
            batch.finish(STEPS).expect("steps")
        };
        assert!(finish(rounding) == finish(Rounding::Nearest));
    }
}

fn unbiased(make: Make) {
    for dtype in SHORT {
        for method in METHODS {
            let errors =
                stochastic(make, specs(dtype)[1], method, small_lr(dtype)).expect("a step");
            assert!(errors < 5.0, "{method} {dtype}: {errors} standard errors");
        }
    }
}

#[test]
fn stochastic_rounding_on_the_cpu_backend() {
    unbiased(&cpu);
}

#[test]
fn stochastic_rounding_on_the_cuda_backend() {
    unbiased(&cuda);
}

/// Which entries moved in a step, for constant factors and gradients.
fn moved(batch: &mut Batch, member: usize) -> Vec<bool> {
    let before = matrix(&batch.members[member].a.view());
    let specs = batch.specs.clone();
    let ones = |rows, cols| HostTensor::from_fn(DType::Bf16, [rows, cols], |_, _| 1.0);
    let gradients = specs
        .iter()
        .map(|spec| (ones(spec.r, spec.n), ones(spec.m, spec.r)))
        .collect();
    batch.step_with(&gradients).expect("a step");
    let after = matrix(&batch.members[member].a.view());
    before.iter().zip(&after).map(|(x, y)| x != y).collect()
}

/// The random numbers are others in each step, for each adapter and for each entry; a run has the
/// same ones again.
#[test]
fn stochastic_rounding_differs_between_steps_and_adapters() {
    for make in [&cpu as Make, &cuda] {
        differs_between_steps_and_adapters(make);
    }
}

fn differs_between_steps_and_adapters(make: Make) {
    let spec = adapter(16, 4000, 8, DType::Bf16);
    let specs = [spec, CaseSpec { seed: 7, ..spec }];
    let hyper = Hyper {
        rounding: Rounding::Stochastic,
        // 1.5 has the spacing 2^-7; a step of lora's AdamW on equal gradients is lr.
        lr: 0.25 * 2f64.powi(-7),
        weight_decay: 0.0,
        ..hyper(Method::Lora)
    };
    let start = || {
        let mut batch = Batch::start(make, &specs, hyper).expect("valid");
        for member in &mut batch.members {
            member.a = HostTensor::from_fn(DType::Bf16, [8, 4000], |_, _| 1.5);
        }
        batch
    };
    let first = moved(&mut start(), 0);
    assert_eq!(first, moved(&mut start(), 0), "a run repeats itself");
    let other = moved(&mut start(), 1);
    let mut batch = start();
    moved(&mut batch, 0);
    for member in &mut batch.members {
        member.a = HostTensor::from_fn(DType::Bf16, [8, 4000], |_, _| 1.5);
    }
    let second = moved(&mut batch, 0);
    let next = first[1..].iter().chain([&first[0]]).copied().collect();
    for (what, pattern) in [("adapter", other), ("step", second), ("entry", next)] {
        independent(&first, &pattern, what);
    }
}

/// Where chance 1/4 and chance 1/4 are independent, both happen with 1/16, within five standard
/// errors.
fn independent(x: &[bool], y: &[bool], what: &str) {
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
