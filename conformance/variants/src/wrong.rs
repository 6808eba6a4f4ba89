//! What edits call: wrong algorithms that are too long to stand in a line.

use lora_pro_core::backend::{
    AdapterSlot, Buffer, Factor, State, StateKind, StateTensor, ratio_or_zero,
};
use lora_pro_core::{
    AdapterIo, AdapterReport, DType, Damping, HostTensor, Hyper, MatMut, Method, ParamIo, XChoice,
};
use nalgebra::{DMatrix, SymmetricEigen};

pub(crate) use crate::active::{batch, keep, kept, kept_hyper};
use crate::reference::adamw::{adam, adam_with_square};
use crate::reference::closed_form::Split;
use crate::reference::damping::{Grams, InverseRoot};
use crate::reference::factored::mean_squares;
use crate::reference::factors::{FactorPair, Factors};
use crate::reference::sgd::with_momentum;
use crate::reference::state::{FactorMoments, Means, Moments};
use crate::reference::storage::{matrix, replace_buffers, store};

type Matrix = DMatrix<f64>;

/// y (I - PA).
pub(crate) fn outside_rows(a: &Matrix, y: &Matrix) -> Matrix {
    // A has few rows and the SVD of its transpose an orthonormal basis of their span.
    let svd = a.transpose().svd(true, false);
    let largest = svd.singular_values.max();
    let mut basis = svd.u.unwrap_or_else(|| a.transpose() * 0.0);
    for (k, size) in svd.singular_values.iter().enumerate() {
        if *size <= 1e-14 * largest {
            basis.column_mut(k).fill(0.0);
        }
    }
    y - y * &basis * basis.transpose()
}

/// Damping added to the Gram matrices themselves.
pub(crate) fn damped_grams(mut grams: Grams, damping: Damping) -> Grams {
    if let Damping::Absolute(d) = damping {
        let r = grams.sb.nrows();
        grams.sb += DMatrix::identity(r, r) * d;
        grams.sa += DMatrix::identity(r, r) * d;
    }
    grams
}

pub(crate) fn gram_in_f32(f: &Matrix) -> Matrix {
    let f = f.map(|x| x as f32);
    (&f * f.transpose()).map(f64::from)
}

pub(crate) fn in_bf16(f: &Matrix) -> Matrix {
    f.map(|x| DType::Bf16.round(x))
}

pub(crate) fn in_f32(x: f64) -> f64 {
    DType::F32.round(x)
}

/// The pseudo-inverse by way of an f32 eigen-decomposition.
pub(crate) fn inverse_in_f32(s: &Matrix) -> InverseRoot {
    let eigen = SymmetricEigen::new(s.map(|x| x as f32));
    let least = eigen.eigenvalues.max() * f32::EPSILON * s.nrows() as f32;
    let inverted = eigen
        .eigenvalues
        .map(|l| if l <= least { 0.0 } else { 1.0 / l });
    let root = eigen.eigenvectors * DMatrix::from_diagonal(&inverted.map(f32::sqrt));
    InverseRoot {
        root: root.map(f64::from),
    }
}

/// The inverse of the diagonal alone, 0 where that is 0.
pub(crate) fn diagonal_inverse(s: &Matrix) -> InverseRoot {
    let root = s
        .diagonal()
        .map(|x| if x > 0.0 { 1.0 / x.sqrt() } else { 0.0 });
    InverseRoot {
        root: DMatrix::from_diagonal(&root),
    }
}

/// Adam on the factors, with the mean of one pair and the square of another.
pub(crate) fn adam_on_two(
    hyper: &Hyper,
    old: &FactorMoments,
    averaged: &FactorPair,
    squared: &FactorPair,
    t: u64,
) -> (FactorMoments, FactorPair) {
    let adam = |old, x, squared: &Matrix| {
        adam_with_square(hyper, old, x, &squared.component_mul(squared), t)
    };
    let (a, direction_a) = adam(&old.a, &averaged.a, &squared.a);
    let (b, direction_b) = adam(&old.b, &averaged.b, &squared.b);
    let direction = FactorPair {
        a: direction_a,
        b: direction_b,
    };
    (FactorMoments { a, b }, direction)
}

/// Nesterov's direction: the gradient and once more the momentum that it has gone into.
pub(crate) fn looking_ahead(
    hyper: &Hyper,
    momentum: Option<&FactorPair>,
    adjusted: &FactorPair,
) -> FactorPair {
    match momentum {
        Some(momentum) => with_momentum(hyper.momentum, momentum, adjusted),
        None => adjusted.clone(),
    }
}

pub(crate) fn square_of_bf16(x: &Matrix) -> Matrix {
    x.map(|x| DType::Bf16.round(x).powi(2))
}

/// Means of the squares of E's two parts, s B U and s V A.
pub(crate) fn mean_squares_of_parts(factors: &Factors, split: &Split) -> Means {
    let of_b = mean_squares(&(&factors.b * &split.u * factors.s));
    let of_a = mean_squares(&(&split.v * &factors.a * factors.s));
    Means {
        row: of_b.row + of_a.row,
        col: of_b.col + of_a.col,
    }
}

/// W0's factor, as if it were A's.
pub(crate) fn root_decay(hyper: &Hyper, whole: f64) -> f64 {
    match hyper.method {
        _ if !hyper.decay_base => 1.0,
        Method::Full | Method::Factored => whole.sqrt(),
        Method::Lora | Method::Sgd | Method::Efficient => whole,
    }
}

/// Each update in a trust region of its own.
pub(crate) fn clipped_per_factor(
    limit: Option<f64>,
    factors: &Factors,
    update: &FactorPair,
) -> FactorPair {
    let clipped = |update: &Matrix, factor: &Matrix| {
        let (moved, size) = (update.norm(), factor.norm());
        match limit {
            Some(limit) if size > 0.0 && ratio_or_zero(moved, size) > limit => {
                update * (limit * size / moved)
            }
            _ => update.clone(),
        }
    };
    FactorPair {
        a: clipped(&update.a, &factors.a),
        b: clipped(&update.b, &factors.b),
    }
}

pub(crate) fn transposed_if_square(x: Matrix) -> Matrix {
    if x.is_square() { x.transpose() } else { x }
}

pub(crate) fn without_last_row(mut x: Matrix) -> Matrix {
    let last = x.nrows() - 1;
    x.row_mut(last).fill(0.0);
    x
}

/// Adapters of equal shape start from the state of the first.
pub(crate) fn share_moments(slots: &mut [AdapterSlot], stepped: &[AdapterIo<'_>]) {
    let shapes: Vec<_> = slots
        .iter()
        .map(|slot| (slot.spec.m, slot.spec.n, slot.spec.r))
        .collect();
    for id in stepped.iter().map(|io| io.id.index()) {
        let first = shapes.iter().position(|shape| *shape == shapes[id]);
        share(slots, first.unwrap_or(id), id, |_| true);
    }
}

/// The moments of A start from those of the first adapter, where their shapes agree.
pub(crate) fn share_moments_of_a(slots: &mut [AdapterSlot], stepped: &[AdapterIo<'_>]) {
    for id in stepped.iter().map(|io| io.id.index()) {
        share(slots, 0, id, |kind| {
            matches!(kind, StateKind::Factor(_, Factor::A))
        });
    }
}

fn share(slots: &mut [AdapterSlot], from: usize, to: usize, which: impl Fn(StateKind) -> bool) {
    for k in 0..slots[from]
        .state
        .tensors
        .len()
        .min(slots[to].state.tensors.len())
    {
        let (tensor, buffer) = &slots[from].state.tensors[k];
        let (kind, shape) = (tensor.kind, tensor.shape);
        let Some(values) = buffer.get::<HostTensor>().cloned() else {
            continue;
        };
        let (tensor, buffer) = &mut slots[to].state.tensors[k];
        if (tensor.kind, tensor.shape) == (kind, shape)
            && which(kind)
            && let Some(own) = buffer.get_mut::<HostTensor>()
        {
            *own = values;
        }
    }
}

pub(crate) fn first_by_shape(all: &[FactorPair]) -> Vec<FactorPair> {
    let shapes = |pair: &FactorPair| (pair.a.shape(), pair.b.shape());
    let first = |own: &FactorPair| {
        let mut equal = all.iter().filter(|pair| shapes(pair) == shapes(own));
        equal.next().unwrap_or(own).clone()
    };
    all.iter().map(first).collect()
}

pub(crate) fn a_of_the_one_before(all: &[FactorPair]) -> Vec<FactorPair> {
    let mut wrong = all.to_vec();
    for (pair, before) in wrong.iter_mut().skip(1).zip(all) {
        if pair.a.shape() == before.a.shape() {
            pair.a = before.a.clone();
        }
    }
    wrong
}

pub(crate) fn round_all_but_the_first(all: &mut [FactorPair]) {
    for pair in all.iter_mut().skip(1) {
        pair.a = pair.a.map(in_f32);
        pair.b = pair.b.map(in_f32);
    }
}

pub(crate) fn change_last_bits_in_batches(all: &mut [FactorPair]) {
    if all.len() > 1 {
        for pair in all {
            *pair = pair.scaled(1.0 + f64::EPSILON);
        }
    }
}

/// The first tensor of the state stays as it was.
pub(crate) fn replace_all_buffers_but_first(state: &mut State, buffers: Vec<Buffer>) {
    replace_all_buffers_but(state, buffers, 0);
}

/// The last tensor of the method's own, before master copies, stays as it was.
pub(crate) fn replace_all_buffers_but_last(state: &mut State, buffers: Vec<Buffer>) {
    let is_own =
        |(tensor, _): &&(StateTensor, Buffer)| !matches!(tensor.kind, StateKind::Master(_));
    let own = state.tensors.iter().filter(is_own).count();
    replace_all_buffers_but(state, buffers, own.wrapping_sub(1));
}

fn replace_all_buffers_but(state: &mut State, mut buffers: Vec<Buffer>, stale: usize) {
    if let (Some((_, old)), Some(new)) = (state.tensors.get_mut(stale), buffers.get_mut(stale)) {
        std::mem::swap(old, new);
    }
    replace_buffers(state, buffers);
}

/// Stores all entries but those of which `stays` is true.
fn store_but(values: &Matrix, view: &mut MatMut<'_>, stays: impl Fn(usize, usize) -> bool) {
    let old = matrix(&view.view());
    let kept = |i, j, new| if stays(i, j) { old[(i, j)] } else { new };
    store(&values.map_with_location(kept), view);
}

pub(crate) fn store_but_last_column(values: &Matrix, view: &mut MatMut<'_>) {
    store_but(values, view, |_, j| j + 1 == values.ncols());
}

pub(crate) fn store_but_first_column(values: &Matrix, view: &mut MatMut<'_>) {
    store_but(values, view, |_, j| j == 0);
}

pub(crate) fn store_but_first_entry(values: &Matrix, view: &mut MatMut<'_>) {
    store_but(values, view, |i, j| (i, j) == (0, 0));
}

pub(crate) fn store_farther(values: &Matrix, view: &mut MatMut<'_>) {
    let old = matrix(&view.view());
    store(&(values + (values - old) * 1e-3), view);
}

pub(crate) fn without_maxima(tensor: &StateTensor, bytes: &[u8]) -> Vec<u8> {
    match tensor.name().starts_with("max_") {
        true => vec![0; bytes.len()],
        false => bytes.to_vec(),
    }
}

pub(crate) fn without_second_moments(tensor: &StateTensor, bytes: &[u8]) -> Vec<u8> {
    match tensor.name().contains("_sq") {
        true => vec![0; bytes.len()],
        false => bytes.to_vec(),
    }
}

pub(crate) fn through_f32(tensor: &StateTensor, bytes: &[u8]) -> Vec<u8> {
    if tensor.dtype != DType::F64 {
        return bytes.to_vec();
    }
    let (numbers, _) = bytes.as_chunks();
    let round = |x: &[u8; 8]| in_f32(f64::from_le_bytes(*x)).to_le_bytes();
    numbers.iter().flat_map(round).collect()
}

/// Lengths as if the updates had not been clipped.
pub(crate) fn undo_clip(report: &mut AdapterReport) {
    let clip = report.clip;
    for lengths in [&mut report.update_norm, &mut report.relative_update] {
        lengths.a /= clip;
        lengths.b /= clip;
    }
}

/// Moves A along gA where gB is about to be rejected.
pub(crate) fn write_a_first(adapters: &mut [AdapterIo<'_>]) {
    for io in adapters {
        if !is_finite(&matrix(&io.grad_b)) {
            let moved = io.a.get(0, 0) - io.grad_a.get(0, 0);
            io.a.set(0, 0, moved);
        }
    }
}

/// Moves the adapters where the gradient of an unpaired parameter is about to be rejected.
pub(crate) fn move_adapters_first(adapters: &mut [AdapterIo<'_>], params: &[ParamIo<'_>]) {
    if params.iter().all(|param| is_finite(&matrix(&param.grad))) {
        return;
    }
    for io in adapters {
        let moved = io.b.get(0, 0) - io.grad_b.get(0, 0);
        io.b.set(0, 0, moved);
    }
}

fn is_finite(values: &Matrix) -> bool {
    values.iter().all(|x| x.is_finite())
}

/// N without AMSGrad, where its maximum is kept.
pub(crate) fn adam_without_maximum(
    hyper: &Hyper,
    old: &Moments,
    g: &Matrix,
    t: u64,
) -> (Moments, Matrix) {
    let plain = Moments {
        largest: None,
        ..old.clone()
    };
    (adam(hyper, old, g, t).0, adam(hyper, &plain, g, t).1)
}

/// One second moment for all entries.
pub(crate) fn adam_with_one_square(
    hyper: &Hyper,
    old: &Moments,
    g: &Matrix,
    t: u64,
) -> (Moments, Matrix) {
    let mean = g.norm_squared() / g.len().max(1) as f64;
    let square = DMatrix::from_element(g.nrows(), g.ncols(), mean);
    adam_with_square(hyper, old, g, &square, t)
}

pub(crate) fn with_another_x(hyper: Hyper) -> &'static Hyper {
    let x = match hyper.x {
        XChoice::Sylvester => XChoice::Symmetric,
        XChoice::Symmetric => XChoice::Zero,
        XChoice::Zero => XChoice::Sylvester,
    };
    kept_hyper(hyper.x(x))
}

/// Noise of one or two units in the last place, up or down.
pub(crate) fn noisy(x: Matrix, dtype: DType) -> Matrix {
    let cols = x.ncols();
    x.map_with_location(|i, j, x| {
        let up = (i * cols + j + 1).wrapping_mul(2_654_435_761) & 64 == 0;
        let noise = 2.0 * dtype.unit_roundoff() * if up { 1.0 } else { -1.0 };
        dtype.round(x * (1.0 + noise))
    })
}
