//! What 8-bit moments must do beyond following f32 ones.

use std::collections::BTreeSet;

use lora_pro_conformance::sample::CaseSpec;
use lora_pro_conformance::support::quantized_moments::{decoded_moment, floats, smallest, with};
use lora_pro_core::backend::MOMENT_BLOCK;
use lora_pro_core::{DType, HostTensor, Moment, MomentDType, StateKind};

use super::{BackendFn, Batch, adapter, state_key};

/// A first step from B = 0, of a gradient with one row that is much larger than all others: what
/// stands beside it in a block is smaller than the smallest code.
pub fn small_numbers(make: BackendFn) {
    let spec = CaseSpec {
        rank_b: 0,
        ..adapter(45, 150, 3, DType::F32)
    };
    let [mut quantized, mut long] = [MomentDType::EightBit, MomentDType::F32]
        .map(|kind| Batch::start(make, &[spec], with(kind, false)).expect("valid"));
    let mut gradients = quantized.gradients(1);
    let grad_b = &mut gradients[0].1;
    for k in 0..spec.r {
        let x = grad_b.view().get(1, k);
        grad_b.view_mut().set(1, k, x * 1e6);
    }
    quantized.step_with(&gradients).expect("a step");
    long.step_with(&gradients).expect("a step");
    let (codes, long) = (
        quantized.saved().expect("saves"),
        long.saved().expect("saves"),
    );
    for (moment, top) in [(Moment::First, 127), (Moment::Second, 255)] {
        let key = state_key(&spec, StateKind::Weight(moment));
        let found = decoded_moment(&codes, &spec, moment);
        let exact = floats(&long.tensors[&key]);
        rounds_small_numbers(&found, &exact, &smallest(&codes, &spec, moment), moment);
        let largest = codes.tensors[&key]
            .bytes
            .iter()
            .map(|code| code & top)
            .max();
        assert_eq!(
            largest,
            Some(top),
            "{moment:?}: the largest number has the largest code"
        );
    }
}

/// Below the smallest code a first moment becomes that or 0, in proportion; a second one that is not
/// 0 never becomes 0.
fn rounds_small_numbers(found: &[f32], exact: &[f32], smallest: &[f32], moment: Moment) {
    let (mut sum, mut variance, mut small) = (0.0, 0.0, 0);
    for ((found, exact), smallest) in found.iter().zip(exact).zip(smallest) {
        if exact.abs() >= *smallest {
            continue;
        }
        small += 1;
        if moment != Moment::First {
            assert!(*found > 0.0 || *exact == 0.0, "{moment:?}: 0 for {exact}");
        } else {
            assert!(found * exact >= 0.0, "{moment:?}: {found} for {exact}");
            let share = f64::from(exact.abs() / smallest);
            sum += f64::from(found.abs() / smallest) - share;
            variance += share * (1.0 - share);
        }
    }
    assert!(small > 100, "{moment:?}: no small numbers");
    assert!(
        sum.abs() <= 5.0 * variance.sqrt(),
        "{moment:?}: {sum} beside {variance}"
    );
}

/// Codes of the same moments are rounded with other random numbers in each step.
pub fn differs(make: BackendFn) {
    let hyper = with(MomentDType::EightBit, false).beta1(0.0).beta2(0.0);
    let spec = adapter(45, 150, 3, DType::F32);
    let mut batch = Batch::start(make, &[spec], hyper).expect("valid");
    let (start, gradients) = (batch.run.adapters[0].clone(), batch.gradients(1));
    let mut step = || {
        batch.run.adapters[0] = start.clone();
        batch.step_with(&gradients).expect("a step");
        batch.saved().expect("saves").tensors
    };
    let (first, second) = (step(), step());
    for moment in [Moment::First, Moment::Second] {
        let key = state_key(&spec, StateKind::Weight(moment));
        let codes = first[&key].bytes.iter().zip(&second[&key].bytes);
        let (count, differ) = (
            first[&key].bytes.len(),
            codes.filter(|(x, y)| x != y).count(),
        );
        assert!(
            differ * 10 > count,
            "{moment:?}: {differ} of {count} differ"
        );
    }
}

/// Equal numbers in a block are rounded with different random numbers: both up and down.
pub fn varies(make: BackendFn) {
    let spec = adapter(12, 128, 1, DType::F32);
    let hyper = with(MomentDType::EightBit, false);
    let mut batch = Batch::start(make, &[spec], hyper).expect("valid");
    // With B = 0 row i of E is gB's row i times A: the first row of each block is larger than others.
    let of = |shape, f: fn(usize) -> f64| HostTensor::from_fn(DType::F32, shape, |i, _| f(i));
    batch.run.adapters[0].a = of([1, spec.n], |_| 1.0);
    batch.run.adapters[0].b = of([spec.m, 1], |_| 0.0);
    let row = |i: usize| {
        if i.is_multiple_of(MOMENT_BLOCK[0]) {
            1.9
        } else {
            1.0
        }
    };
    let gradients = (of([1, spec.n], |_| 0.0), of([spec.m, 1], row));
    batch.step_with(&vec![gradients]).expect("a step");
    let saved = batch.saved().expect("saves");
    for moment in [Moment::First, Moment::Second] {
        let codes = &saved.tensors[&state_key(&spec, StateKind::Weight(moment))].bytes;
        for (i, j) in [(0, 0), (0, 64), (6, 0), (6, 64)] {
            let row = |i: usize| &codes[i * spec.n + j..][..MOMENT_BLOCK[1]];
            let rows: Vec<&[u8]> = (i + 1..i + 6).map(row).collect();
            let found: BTreeSet<u8> = rows.concat().into_iter().collect();
            assert_eq!(found.len(), 2, "{moment:?}: {found:?}");
            let different: BTreeSet<&[u8]> = rows.iter().copied().collect();
            assert_eq!(different.len(), rows.len(), "{moment:?}: rows");
            let mut eights = rows.iter().flat_map(|row| row.chunks(8));
            let mixed = eights.any(|eight| eight.iter().any(|code| *code != eight[0]));
            assert!(mixed, "{moment:?}: columns");
        }
    }
}
