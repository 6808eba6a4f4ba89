//! A step that cannot be done is refused as a whole: no adapter of its batch has changed.

mod common;

use common::{
    BackendFn, Batch, Gradients, METHODS, adapter, cpu, cuda, differing, hyper, name, reference,
};
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{Config, DType, Method, OnNonFinite};

/// Adapters that are cut for several threads and such that are not.
fn specs(dtype: DType) -> Vec<CaseSpec> {
    vec![
        adapter(5, 7, 2, dtype),
        adapter(150, 140, 4, dtype),
        adapter(64, 6, 3, dtype),
    ]
}

/// One step that goes well, then one that is refused, naming the adapter at `faulty`.
fn refused(batch: &mut Batch, gradients: &Gradients, faulty: usize, what: &str) {
    let before = batch.bits().expect("saves");
    let error = batch.step_with(gradients).expect_err(what).to_string();
    let subject = name(&batch.specs[faulty]);
    assert!(error.contains(&subject), "{what}: {error}");
    let differ = differing(&before, &batch.bits().expect("saves"));
    assert!(differ.is_empty(), "{what}: {differ:?} changed");
}

/// One adapter has a learning rate at which its factors leave the storage type.
fn overflowing_factors(make: BackendFn) {
    for dtype in [DType::F16, DType::Bf16, DType::F32] {
        for method in METHODS {
            for faulty in 0..3 {
                let calm = hyper(method);
                let lr = if dtype == DType::F16 { 1e6 } else { 1e41 };
                let config = Config::from(calm).group("overflowing", calm.lr(lr).weight_decay(0.0));
                let group = |k: usize| (k == faulty).then(|| "overflowing".to_string());
                let mut batch = Batch::grouped(make, &specs(dtype), config, group).expect("valid");
                let gradients = batch.gradients(1);
                refused(
                    &mut batch,
                    &gradients,
                    faulty,
                    &format!("{method} {dtype} {faulty}"),
                );
            }
        }
    }
}

#[test]
fn reference_refuses_overflowing_factors() {
    overflowing_factors(&reference);
}

#[test]
fn cpu_refuses_overflowing_factors() {
    overflowing_factors(&cpu);
}

#[test]
fn cuda_refuses_overflowing_factors() {
    overflowing_factors(&cuda);
}

/// Finite gradients whose squares f32 does not hold.
fn overflowing_moments(make: BackendFn) {
    for method in [
        Method::Lora,
        Method::Efficient,
        Method::Factored,
        Method::Full,
    ] {
        let mut batch = Batch::start(make, &specs(DType::F32), hyper(method)).expect("valid");
        batch.step(1).expect("a step");
        let mut gradients = batch.gradients(2);
        let (a, b) = &mut gradients[1];
        for tensor in [a, b] {
            let [rows, cols] = tensor.shape();
            for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
                let x = tensor.view().get(i, j);
                tensor.view_mut().set(i, j, x * 1e25);
            }
        }
        refused(&mut batch, &gradients, 1, &method.to_string());
    }
}

#[test]
fn reference_refuses_overflowing_moments() {
    overflowing_moments(&reference);
}

#[test]
fn cpu_refuses_overflowing_moments() {
    overflowing_moments(&cpu);
}

#[test]
fn cuda_refuses_overflowing_moments() {
    overflowing_moments(&cuda);
}

/// NaN and infinity at the first and the last entry of every tensor of every adapter.
fn broken_entries(make: BackendFn, dtype: DType) {
    for method in METHODS {
        let mut batch = Batch::start(make, &specs(dtype), hyper(method)).expect("valid");
        batch.step(1).expect("a step");
        let good = batch.gradients(2);
        for faulty in 0..3 {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                for last in [false, true] {
                    let mut gradients = good.clone();
                    let (a, b) = &mut gradients[faulty];
                    let tensor = if last { a } else { b };
                    let [rows, cols] = tensor.shape();
                    let at = if last { (rows - 1, cols - 1) } else { (0, 0) };
                    tensor.view_mut().set(at.0, at.1, value);
                    let what = format!("{method} {dtype}, gradient {faulty}, {value}");
                    refused(&mut batch, &gradients, faulty, &what);

                    let member = &mut batch.run.adapters[faulty];
                    let kept = member.clone();
                    let factor = if last { &mut member.b } else { &mut member.a };
                    let [rows, cols] = factor.shape();
                    let at = if last { (rows - 1, cols - 1) } else { (0, 0) };
                    factor.view_mut().set(at.0, at.1, value);
                    let what = format!("{method} {dtype}, factor {faulty}, {value}");
                    refused(&mut batch, &good, faulty, &what);
                    batch.run.adapters[faulty] = kept;
                }
            }
        }
        batch.step_with(&good).expect("nothing is left of it");
    }
}

#[test]
fn reference_refuses_broken_entries() {
    broken_entries(&reference, DType::F32);
}

#[test]
fn cpu_refuses_broken_entries() {
    for dtype in DType::PARAMETERS {
        broken_entries(&cpu, dtype);
    }
}

#[test]
fn cuda_refuses_broken_entries() {
    for dtype in DType::PARAMETERS {
        broken_entries(&cuda, dtype);
    }
}

/// Where broken gradients are to be skipped, the whole batch is, and then goes on.
fn skips(make: BackendFn) {
    for method in METHODS {
        let config = Config::from(hyper(method)).on_non_finite(OnNonFinite::Skip);
        let mut batch = Batch::start(make, &specs(DType::F16), config.clone()).expect("valid");
        let mut straight = Batch::start(make, &specs(DType::F16), config).expect("valid");
        for t in 1..=3 {
            let good = batch.gradients(t);
            let mut broken = good.clone();
            broken[2].1.view_mut().set(63, 2, f64::INFINITY);
            let before = batch.bits().expect("saves");
            let report = batch.step_with(&broken).expect("skips");
            assert!(
                report
                    .skipped
                    .is_some_and(|skip| skip.subject.contains(&name(&batch.specs[2])))
            );
            assert!(
                before == batch.bits().expect("saves"),
                "{method}: a skipped step changes"
            );
            batch.step_with(&good).expect("a step");
            straight.step_with(&good).expect("a step");
        }
        assert!(
            batch.bits().expect("saves") == straight.bits().expect("saves"),
            "{method}"
        );
    }
}

#[test]
fn reference_skips() {
    skips(&reference);
}

#[test]
fn cpu_skips() {
    skips(&cpu);
}

#[test]
fn cuda_skips() {
    skips(&cuda);
}
