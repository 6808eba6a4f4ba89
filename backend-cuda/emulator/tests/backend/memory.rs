//! Memory that runs out at any point of a step: the step is refused as a whole, and possible once
//! there is memory again.

use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{DType, Error, Method};
use lora_pro_cuda::Options;

use crate::common::{Bits, adapter, differing, hyper};
use crate::counting::counting;
use crate::model::{Part, TestModel};

/// Sets of which each needs more memory than the last: the second one only for what is uploaded, the
/// last one for a step that might overflow.
const SETS: [&[usize]; 4] = [&[1], &[0, 4, 5, 6, 7, 8, 9], &[0, 1, 2], &[1, 3]];

fn parts() -> Vec<Part> {
    const METHODS: [Method; 4] = [
        Method::Efficient,
        Method::Full,
        Method::Factored,
        Method::Lora,
    ];
    let part = |k: usize| Part {
        spec: CaseSpec {
            seed: k as u64,
            ..adapter(12, if k == 1 { 3000 } else { 9 }, 2, DType::F16)
        },
        hyper: hyper(METHODS[k.min(3)])
            .lr(if k == 3 { 1e4 } else { 1e-2 })
            .weight_decay(0.0),
        unpaired: true,
    };
    (0..10).map(part).collect()
}

/// Sets in turn, the last one again before each where `between` says so. Before that, a set is tried
/// with memory for a few allocations only. Whether these were enough, besides what is there in the
/// end.
fn run(between: bool, scarce: Option<(usize, usize)>) -> (Bits, bool) {
    let device = counting(0);
    let mut model = TestModel::start(&device, Options::default(), &parts());
    let mut enough = true;
    for (at, which) in SETS.into_iter().enumerate() {
        model.set_gradients(&model.all(), at as u64 + 1);
        if let Some((_, allocations)) = scarce.filter(|scarce| scarce.0 == at) {
            enough = is_enough(&mut model, which, allocations);
        }
        if between && at > 0 {
            model.step_current(SETS[at - 1]).expect("a step");
        }
        model.step_current(which).expect("a step");
    }
    (model.bits(), enough)
}

/// Whether a step is possible with so much memory; one that is not must change nothing.
fn is_enough(model: &mut TestModel, which: &[usize], allocations: usize) -> bool {
    let before = model.bits();
    model.device.hook().leave(allocations);
    let outcome = model.step_current(which);
    model.device.hook().leave(usize::MAX);
    let Err(error) = outcome else { return true };
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    let differ = differing(&model.bits(), &before);
    assert!(
        differ.is_empty(),
        "{which:?} with {allocations} allocations: {differ:?}"
    );
    false
}

#[test]
fn a_step_without_memory_changes_nothing() {
    for between in [false, true] {
        let (expected, _) = run(between, None);
        for at in 0..SETS.len() {
            let refused = (0..).take_while(|allocations| {
                let (found, enough) = run(between, Some((at, *allocations)));
                let differ = differing(&found, &expected);
                assert!(
                    enough || differ.is_empty(),
                    "set {at}, {allocations}: {differ:?}"
                );
                !enough
            });
            assert!(refused.count() > 0, "set {at} needs no memory");
        }
    }
}
