//! Steps that never wait: what comes home in `sync`, and what does not get lost until then.

use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{DType, Error, HostTensor, OnNonFinite};
use lora_pro_cuda::Options;

use crate::common::layout::Layout;
use crate::common::{METHODS, adapter, differing, hyper, name};
use crate::counting::counting;
use crate::model::{Part, TestModel, config};

const DEFERRED: Options = Options { deferred: true };

/// One adapter of each method.
pub fn parts() -> Vec<Part> {
    let dtypes = [DType::F32, DType::F64, DType::Bf16, DType::F16, DType::F32];
    let parts = METHODS.into_iter().zip(dtypes).enumerate();
    let part = |(k, (method, dtype)): (usize, _)| Part {
        spec: CaseSpec {
            seed: k as u64,
            ..adapter(30 + k, 70, 3, dtype)
        },
        hyper: hyper(method).decay_base(true),
        unpaired: k % 2 == 0,
    };
    parts.map(part).collect()
}

fn model(options: Options) -> TestModel {
    TestModel::start(&counting(0), options, &parts())
}

/// Spoils the gradients of one member until they are set again.
fn spoil(model: &mut TestModel, member: usize) {
    let spec = model.members[member].part.spec;
    let nan = HostTensor::from_fn(spec.dtype, [spec.r, spec.n], |i, j| {
        if (i, j) == (1, 2) { f64::NAN } else { 0.5 }
    });
    let grad = model.members[member].tensors.get_mut("grad A");
    grad.expect("there is one").put(&nan);
}

#[test]
fn sync_brings_the_reports_of_the_waiting_mode() {
    let [mut deferred, mut waiting] = [DEFERRED, Options::default()].map(model);
    for t in 1..=4 {
        deferred.set_gradients(&deferred.all(), t);
        deferred.device.hook().asked();
        let report = deferred.step_current(&deferred.all()).expect("a step");
        assert!(report.grad_norm.is_nan() && report.grad_clip.is_nan());
        assert_eq!(report.lr_factor, 1.0);
        if t > 1 {
            let others = deferred.device.hook().asked().others;
            assert!(others.is_empty(), "step {t}: {others:?}");
        }
        waiting.step(t).expect("a step");
    }
    let counters = |model: &TestModel| -> Vec<u64> {
        let adapters = model
            .optimizer
            .adapters()
            .iter()
            .map(|slot| slot.state.step);
        let params = model.optimizer.params().iter().map(|slot| slot.state.step);
        adapters.chain(params).collect()
    };
    assert!(counters(&deferred).iter().all(|step| *step == 0));
    deferred.optimizer.sync().expect("all is well");
    assert_eq!(counters(&deferred), counters(&waiting));
    let slots = deferred.optimizer.adapters().iter();
    for (found, expected) in slots.zip(waiting.optimizer.adapters()) {
        assert_eq!(found.report, expected.report, "{}", found.spec.name);
    }
    let differ = differing(&deferred.bits(), &waiting.bits());
    assert!(differ.is_empty(), "{differ:?}");

    deferred.device.hook().asked();
    deferred.step_current(&deferred.all()).expect("a step");
    let others = deferred.device.hook().asked().others;
    assert!(
        others.is_empty(),
        "what came home is not uploaded again: {others:?}"
    );
}

/// Reports of adapters that the last steps left out.
#[test]
fn reports_of_earlier_sets() {
    let [mut deferred, mut waiting] = [DEFERRED, Options::default()].map(model);
    let sets = [vec![0, 1, 2, 3, 4], vec![3, 1], vec![2]];
    for (t, which) in sets.iter().enumerate() {
        deferred.step_of(which, t as u64 + 1).expect("a step");
        waiting.step_of(which, t as u64 + 1).expect("a step");
    }
    deferred.optimizer.sync().expect("all is well");
    let slots = deferred.optimizer.adapters().iter();
    for (found, expected) in slots.zip(waiting.optimizer.adapters()) {
        assert_eq!(found.report, expected.report, "{}", found.spec.name);
        assert_eq!(found.state.step, expected.state.step, "{}", found.spec.name);
    }
}

#[test]
fn a_broken_gradient_changes_nothing_and_is_reported_in_sync() {
    for on_non_finite in [OnNonFinite::Error, OnNonFinite::Skip] {
        let config = config(&parts()).on_non_finite(on_non_finite);
        let start = || {
            let device = counting(0);
            let lay = |_: &'static str| Layout::Odd;
            TestModel::with(&device, DEFERRED, &parts(), config.clone(), &lay).expect("valid")
        };
        let (mut broken, mut straight) = (start(), start());
        for t in 1..=4 {
            if t == 3 {
                spoil(&mut broken, 3);
                broken
                    .step_current(&broken.all())
                    .expect("the refusal is reported in sync");
                broken.set_gradients(&broken.all(), t);
            }
            // The set changes before the refusal is reported.
            let which: &[usize] = if t > 2 { &[4, 1] } else { &[0, 1, 2, 3, 4] };
            broken.step_of(which, t).expect("a step");
            straight.step_of(which, t).expect("a step");
        }
        match (broken.optimizer.sync(), on_non_finite) {
            (Ok(()), OnNonFinite::Skip) => (),
            (Err(Error::Backend { reason, .. }), OnNonFinite::Error) => {
                let subject = name(&broken.members[3].part.spec);
                assert!(reason.contains(&subject), "{reason}");
                assert!(reason.contains("1 step(s)"), "{reason}");
            }
            (other, _) => panic!("{other:?}"),
        }
        broken.optimizer.sync().expect("a refusal is reported once");
        let differ = differing(&broken.bits(), &straight.bits());
        assert!(differ.is_empty(), "{on_non_finite:?}: {differ:?}");
    }
}

/// Numbers that might overflow are for the other mode to try.
#[test]
fn a_step_that_might_overflow_changes_nothing() {
    let mut parts = parts();
    parts[2].hyper.lr = 1e35;
    parts[2].hyper.weight_decay = 0.0;
    let mut model = TestModel::start(&counting(0), DEFERRED, &parts);
    let before = model.bits();
    model.step(1).expect("the refusal is reported in sync");
    let text = model.optimizer.sync().expect_err("refused").to_string();
    let subject = name(&parts[2].spec);
    assert!(
        text.contains(&subject) && text.contains("overflow"),
        "{text}"
    );
    let differ = differing(&model.bits(), &before);
    assert!(differ.is_empty(), "{differ:?}");
}

/// An adapter that is registered while counters are on the device only.
#[test]
fn more_adapters_on_the_way() {
    let parts = parts();
    let late = Part {
        spec: adapter(12, 13, 2, DType::F32),
        ..parts[2]
    };
    let every: Vec<_> = parts.iter().copied().chain([late]).collect();
    let finish = |options| {
        let device = counting(0);
        let lay = |_: &'static str| Layout::Rows;
        let mut model =
            TestModel::with(&device, options, &parts, config(&every), &lay).expect("valid");
        model.step(1).expect("a step");
        model.step(2).expect("a step");
        model.add(late, &lay).expect("valid");
        model.step(3).expect("a step");
        model.bits()
    };
    let differ = differing(&finish(DEFERRED), &finish(Options::default()));
    assert!(differ.is_empty(), "{differ:?}");
}

/// A refusal that is not reported yet when an adapter is registered.
#[test]
fn a_refusal_before_more_adapters() {
    let parts = parts();
    let late = Part {
        spec: adapter(12, 13, 2, DType::F32),
        ..parts[2]
    };
    let every: Vec<_> = parts.iter().copied().chain([late]).collect();
    let lay = |_: &'static str| Layout::Rows;
    let device = counting(0);
    let mut model =
        TestModel::with(&device, DEFERRED, &parts, config(&every), &lay).expect("valid");
    spoil(&mut model, 1);
    model
        .step_current(&model.all())
        .expect("the refusal is reported in sync");
    model.add(late, &lay).expect("valid");
    let outcome = model.step(2).and_then(|_| model.optimizer.sync());
    let text = outcome.expect_err("the refusal is reported").to_string();
    assert!(text.contains(&name(&parts[1].spec)), "{text}");
}

#[test]
fn what_is_saved_continues_to_the_last_bit() {
    let finish = |interrupted: bool, options: Options| {
        let mut model = model(options);
        for t in 1..=4 {
            if interrupted {
                model = model.resumed(options);
            }
            model.step(t).expect("a step");
        }
        model.bits()
    };
    let expected = finish(false, Options::default());
    for options in [DEFERRED, Options::default()] {
        let differ = differing(&finish(true, options), &expected);
        assert!(differ.is_empty(), "{options:?}: {differ:?}");
    }
}

#[test]
fn nothing_is_allocated_after_the_first_step_and_all_is_given_back() {
    for options in [DEFERRED, Options::default()] {
        let mut model = model(options);
        let device = model.device.clone();
        model.step(1).expect("a step");
        let used = device.hook().in_use();
        for t in 2..=4 {
            model.step(t).expect("a step");
            assert_eq!(device.hook().in_use(), used);
        }
        model.optimizer.sync().expect("all is well");
        assert_eq!(device.hook().in_use(), used);
        drop(model);
        assert_eq!(device.hook().in_use(), 0);
    }
}
