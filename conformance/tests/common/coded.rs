//! 8-bit moments held against f32 ones.

use std::collections::BTreeSet;
use std::path::Path;

use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{
    DType, HostTensor, Hyper, MOMENT_BLOCK, Method, MomentDType, Optimizer, TensorData, TensorFile,
};

use super::{Batch, Make, adapter, hyper, name};

fn with(moment_dtype: MomentDType, amsgrad: bool) -> Hyper {
    Hyper {
        moment_dtype,
        amsgrad,
        // Second moments that forget in ten steps show more codes than those that hardly move.
        beta2: 0.9,
        update_clip: None,
        ..hyper(Method::Full)
    }
}

/// A code as the table in the book has it: bits `(c + 1023 - top) << 20` of an f32 number.
fn decoded(code: u8, signed: bool, scale: f32) -> f32 {
    let (size, top) = if signed {
        (code & 127, 127)
    } else {
        (code, 255)
    };
    if size == 0 {
        return 0.0;
    }
    let size = f32::from_bits((u32::from(size) + 1023 - top) << 20) * scale;
    if signed && code > 127 { -size } else { size }
}

/// A moment as f32 numbers, from its codes and scales.
fn moment(file: &TensorFile, spec: &CaseSpec, tensor: &str) -> Vec<f32> {
    read(file, spec, tensor, |code| code)
}

/// For each entry of a moment, the smallest number that is not 0 in its block.
fn smallest(file: &TensorFile, spec: &CaseSpec, tensor: &str) -> Vec<f32> {
    read(file, spec, tensor, |_| 1)
}

/// Numbers from a moment's scales and the codes that `code` has in the place of the codes there.
fn read(file: &TensorFile, spec: &CaseSpec, tensor: &str, code: impl Fn(u8) -> u8) -> Vec<f32> {
    let data = |tensor: &str| &file.tensors[&format!("state.{}.{tensor}", name(spec))];
    let scales: Vec<f32> = floats(data(&format!("{tensor}_scale")));
    let across = spec.n.div_ceil(MOMENT_BLOCK[1]);
    let codes = data(tensor).bytes.iter().enumerate();
    let numbers = codes.map(|(at, found)| {
        let (i, j) = (at / spec.n, at % spec.n);
        let block = i / MOMENT_BLOCK[0] * across + j / MOMENT_BLOCK[1];
        decoded(code(*found), tensor == "exp_avg", scales[block])
    });
    numbers.collect()
}

fn floats(data: &TensorData) -> Vec<f32> {
    let numbers = data.bytes.chunks_exact(4);
    numbers
        .map(|x| f32::from_le_bytes(x.try_into().expect("four bytes")))
        .collect()
}

/// A run in f32 moments that continues from the 8-bit run's codes.
fn in_f32(make: Make, coded: &mut Batch, names: &[&str], amsgrad: bool) -> Batch {
    let spec = coded.specs[0];
    let mut long = Batch::start(make, &[spec], with(MomentDType::F32, amsgrad)).expect("valid");
    let mut file = coded.saved().expect("saves");
    let decoded: Vec<Vec<f32>> = names
        .iter()
        .map(|name| moment(&file, &spec, name))
        .collect();
    file.tensors.clear();
    for (tensor, values) in names.iter().zip(decoded) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let data = TensorData {
            dtype: DType::F32,
            shape: vec![spec.m, spec.n],
            bytes,
        };
        file.tensors
            .insert(format!("state.{}.{tensor}", name(&spec)), data);
    }
    let text = file.document.to_string().replace("\"8bit\"", "\"f32\"");
    file.document = serde_json::from_str(&text).expect("a document");
    long.optimizer = Optimizer::load_from(make(), &file, Path::new("checkpoint")).expect("loads");
    long.members = coded.members.iter().map(|member| member.copy()).collect();
    long
}

/// Steps of 8-bit moments against those of f32 ones, each from the codes as they are.
pub fn follows(make: Make, spec: CaseSpec, amsgrad: bool, steps: u64) {
    let names: &[&str] = match amsgrad {
        true => &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
        false => &["exp_avg", "exp_avg_sq"],
    };
    let mut coded = Batch::start(make, &[spec], with(MomentDType::Bits8, amsgrad)).expect("valid");
    // Sums of what rounding did to first moments, in steps between neighbouring codes.
    let (mut sum, mut count) = (0.0, 0.0);
    for t in 1..=steps {
        let mut long = in_f32(make, &mut coded, names, amsgrad);
        let gradients = coded.gradients(t);
        coded.step_with(&gradients).expect("a step");
        long.step_with(&gradients).expect("a step");
        let (x, y) = (&coded.members[0], &long.members[0]);
        assert!(x.a == y.a && x.b == y.b, "step {t}");

        let (codes, exact) = (coded.saved().expect("saves"), long.saved().expect("saves"));
        for tensor in names {
            let found = moment(&codes, &spec, tensor);
            let exact = floats(&exact.tensors[&format!("state.{}.{tensor}", name(&spec))]);
            let largest = exact.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            for (found, exact) in found.iter().zip(&exact) {
                // Eight codes in an octave: the next one is an eighth away at most. The smallest
                // is far below 1e-4 of the largest of its block.
                let step = exact.abs() / 8.0 + largest * 1e-4;
                let off = (found - exact) / step;
                assert!(off.abs() <= 1.001, "step {t} {tensor}: {found} for {exact}");
                if *tensor == "exp_avg" {
                    sum += f64::from(off);
                    count += 1.0;
                }
            }
        }
    }
    // Each is a draw of mean 0 from an interval of length 1 at most.
    let limit = 5.0 * 0.5 / f64::sqrt(count);
    assert!((sum / count).abs() < limit, "{} of {limit}", sum / count);
}

/// A first step from B = 0, of a gradient with one row that is much larger than all others: what
/// stands beside it in a block is smaller than the smallest code.
pub fn small_numbers(make: Make) {
    let spec = CaseSpec {
        rank_b: 0,
        ..adapter(45, 150, 3, DType::F32)
    };
    let [mut coded, mut long] = [MomentDType::Bits8, MomentDType::F32]
        .map(|kind| Batch::start(make, &[spec], with(kind, false)).expect("valid"));
    let mut gradients = coded.gradients(1);
    let grad_b = &mut gradients[0].1;
    for k in 0..spec.r {
        let x = grad_b.view().get(1, k);
        grad_b.view_mut().set(1, k, x * 1e6);
    }
    coded.step_with(&gradients).expect("a step");
    long.step_with(&gradients).expect("a step");
    let (codes, long) = (coded.saved().expect("saves"), long.saved().expect("saves"));
    for (tensor, top) in [("exp_avg", 127), ("exp_avg_sq", 255)] {
        let key = format!("state.{}.{tensor}", name(&spec));
        let found = moment(&codes, &spec, tensor);
        let exact = floats(&long.tensors[&key]);
        rounds_small_numbers(&found, &exact, &smallest(&codes, &spec, tensor), tensor);
        let largest = codes.tensors[&key]
            .bytes
            .iter()
            .map(|code| code & top)
            .max();
        assert_eq!(
            largest,
            Some(top),
            "{tensor}: the largest number has the largest code"
        );
    }
}

/// Below the smallest code a first moment becomes that or 0, in proportion; a second one that is not
/// 0 never becomes 0.
fn rounds_small_numbers(found: &[f32], exact: &[f32], smallest: &[f32], tensor: &str) {
    let (mut sum, mut variance, mut small) = (0.0, 0.0, 0);
    for ((found, exact), smallest) in found.iter().zip(exact).zip(smallest) {
        if exact.abs() >= *smallest {
            continue;
        }
        small += 1;
        if tensor != "exp_avg" {
            assert!(*found > 0.0 || *exact == 0.0, "{tensor}: 0 for {exact}");
        } else {
            assert!(found * exact >= 0.0, "{tensor}: {found} for {exact}");
            let share = f64::from(exact.abs() / smallest);
            sum += f64::from(found.abs() / smallest) - share;
            variance += share * (1.0 - share);
        }
    }
    assert!(small > 100, "{tensor}: no small numbers");
    assert!(
        sum.abs() <= 5.0 * variance.sqrt(),
        "{tensor}: {sum} beside {variance}"
    );
}

/// Codes of the same moments are rounded with other random numbers in each step.
pub fn differs(make: Make) {
    let hyper = Hyper {
        beta1: 0.0,
        beta2: 0.0,
        ..with(MomentDType::Bits8, false)
    };
    let spec = adapter(45, 150, 3, DType::F32);
    let mut batch = Batch::start(make, &[spec], hyper).expect("valid");
    let (start, gradients) = (batch.members[0].copy(), batch.gradients(1));
    let mut step = || {
        batch.members[0] = start.copy();
        batch.step_with(&gradients).expect("a step");
        batch.saved().expect("saves").tensors
    };
    let (first, second) = (step(), step());
    for tensor in ["exp_avg", "exp_avg_sq"] {
        let key = format!("state.{}.{tensor}", name(&spec));
        let codes = first[&key].bytes.iter().zip(&second[&key].bytes);
        let (count, differ) = (
            first[&key].bytes.len(),
            codes.filter(|(x, y)| x != y).count(),
        );
        assert!(differ * 10 > count, "{tensor}: {differ} of {count} differ");
    }
}

/// Equal numbers in a block are rounded with different random numbers: both up and down.
pub fn varies(make: Make) {
    let spec = adapter(12, 128, 1, DType::F32);
    let hyper = with(MomentDType::Bits8, false);
    let mut batch = Batch::start(make, &[spec], hyper).expect("valid");
    // With B = 0 row i of E is gB's row i times A: the first row of each block is larger than others.
    let of = |shape, f: fn(usize) -> f64| HostTensor::from_fn(DType::F32, shape, |i, _| f(i));
    batch.members[0].a = of([1, spec.n], |_| 1.0);
    batch.members[0].b = of([spec.m, 1], |_| 0.0);
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
    for tensor in ["exp_avg", "exp_avg_sq"] {
        let codes = &saved.tensors[&format!("state.{}.{tensor}", name(&spec))].bytes;
        for (i, j) in [(0, 0), (0, 64), (6, 0), (6, 64)] {
            let of_row = |i: usize| &codes[i * spec.n + j..][..MOMENT_BLOCK[1]];
            let found: BTreeSet<u8> = (i + 1..i + 6).flat_map(of_row).copied().collect();
            assert_eq!(found.len(), 2, "{tensor}: {found:?}");
        }
    }
}
