//! From slots and borrowed tensors to what the kernels read.

use lora_pro_core::backend::{AdapterSlot, Factor, MOMENT_BLOCK, Moment, ParamSlot, StateKind};
use lora_pro_core::{
    AdapterIo, DType, Damping, Error, Hyper, MatRef, Method, MomentDType, ParamIo, Rounding,
    XChoice,
};

use crate::memory::{address, leading};
use crate::model::{self, COEFFICIENTS, ENTRIES, SMALL_COUNT};
use crate::{MAX_RANK, NAME};

/// Deals out scratch memory: addresses from `base` on, and in the end how much was needed.
pub(crate) struct Arena {
    base: u64,
    used: usize,
}

impl Arena {
    pub(crate) fn new(base: u64) -> Self {
        Arena { base, used: 0 }
    }

    /// Memory for so many numbers of so many bytes.
    fn take(&mut self, count: usize, size: usize) -> u64 {
        let at = self.base + self.used as u64;
        self.used += (count * size).next_multiple_of(256);
        at
    }

    /// Bytes that were dealt out.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

/// Whether an adapter is computed in f64: where anything that grows with it is stored in f64.
pub(crate) fn pair_in_f64(slot: &AdapterSlot) -> bool {
    let moments = slot.hyper.method == Method::Full && slot.hyper.moment_dtype == MomentDType::F64;
    slot.spec.dtype == DType::F64 || moments
}

/// Columns of a tile: what lets five tiles of r rows fit into shared memory.
pub(crate) fn width(r: usize, in_f64: bool) -> usize {
    let numbers = if in_f64 { 1024 } else { 2048 };
    numbers / r.max(8).next_power_of_two()
}

/// Columns that a block visits: more for larger ranks, whose products are larger. A multiple of
/// every width.
fn chunk(r: usize) -> usize {
    (32 * r.max(16)).next_multiple_of(256)
}

/// Rows that a block of the wide pass goes down: a multiple of what its warps have at once in each
/// kernel (16, 24 and 48 rows).
pub(crate) const WIDE_ROWS: usize = 480;

/// 8-bit moments share scales in blocks of the shape that the kernels know.
const _: () = assert!(MOMENT_BLOCK[0] == 6 && MOMENT_BLOCK[1] == 64);

/// Columns of a block of the wide pass.
pub(crate) const STRIP: usize = 256;

/// How many numbers a chunk leaves of products of `rows` by `cols` entries: `products_of` of
/// `kernels/gram.cuh`.
fn products(rows: usize, cols: usize) -> usize {
    let squares = rows.div_ceil(8) * cols.div_ceil(8);
    let sharers = if squares < 8 { 8 / squares } else { 1 };
    squares * sharers * 64
}

fn dtype_number(dtype: DType) -> i32 {
    match dtype {
        DType::F64 => 0,
        DType::F32 => 1,
        DType::Bf16 => 2,
        DType::F16 => 3,
        DType::U8 => 4,
    }
}

/// Refuses elements that no load instruction of a GPU reaches.
fn check_aligned(of: &MatRef<'_>, subject: impl Fn() -> String, tensor: &str) -> Result<(), Error> {
    let (at, size) = (of.as_ptr() as usize, of.dtype().size());
    if at.is_multiple_of(size) {
        return Ok(());
    }
    let what = format!("{tensor} at the address {at:#x}, which is not aligned to {size} bytes");
    Err(Error::Unsupported {
        subject: subject(),
        backend: NAME.into(),
        what,
    })
}

fn check_pair_aligned(slot: &AdapterSlot, io: &AdapterIo<'_>) -> Result<(), Error> {
    let subject = || slot.spec.subject();
    check_aligned(&io.a.view(), subject, "A")?;
    check_aligned(&io.b.view(), subject, "B")?;
    check_aligned(&io.grad_a, subject, "grad A")?;
    check_aligned(&io.grad_b, subject, "grad B")?;
    match &io.w0 {
        Some(base) if slot.hyper.decay_base => check_aligned(&base.view(), subject, "W0"),
        _ => Ok(()),
    }
}

/// A borrowed matrix, perhaps transposed.
fn view(of: &MatRef<'_>, transposed: bool) -> model::View {
    let ([mut rows, mut cols], [mut row, mut col]) = (of.shape(), of.strides());
    if transposed {
        (rows, cols, row, col) = (cols, rows, col, row);
    }
    let size = of.dtype().size();
    let aligned = |x: usize| x.is_multiple_of(16);
    let at = of.as_ptr() as u64;
    // Columns without gaps, from the first row on; the run of a tile starts at a multiple of eight
    // columns.
    let by_columns = row == 1 && col == rows as isize && aligned(at as usize);
    let by_rows = col == 1 && row >= cols as isize && aligned(at as usize);
    let by_rows = by_rows && aligned(row.unsigned_abs() * size);
    model::View {
        at,
        row: row as i64,
        col: col as i64,
        dtype: dtype_number(of.dtype()),
        run: match (by_rows, by_columns) {
            (true, _) => 1,
            (_, true) => 2,
            _ => 0,
        },
    }
}

fn hyper(of: &Hyper, in_f64: bool) -> model::Hyper {
    let (damping_kind, damping) = match of.damping {
        Damping::None => (0, 0.0),
        Damping::Absolute(d) => (1, d),
        Damping::Relative(c) => (2, c),
        Damping::Cutoff(c) => (3, c),
    };
    model::Hyper {
        lr: of.lr,
        lr_ratio: of.lr_ratio,
        beta1: of.beta1,
        beta2: of.beta2,
        eps: of.eps,
        weight_decay: of.weight_decay,
        momentum: of.momentum,
        damping,
        update_clip: of.update_clip.unwrap_or(0.0),
        method: match of.method {
            Method::Lora => 0,
            Method::Sgd => 1,
            Method::Efficient => 2,
            Method::Factored => 3,
            Method::Full => 4,
        },
        x: match of.x {
            XChoice::Sylvester => 0,
            XChoice::Symmetric => 1,
            XChoice::Zero => 2,
        },
        damping_kind,
        maximize: i32::from(of.maximize),
        stochastic: i32::from(of.rounding == Rounding::Stochastic),
        in_f64: i32::from(in_f64),
    }
}

/// FNV-1a: what an adapter's random numbers follow from.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Where a slot's counter and report are.
#[derive(Clone, Copy)]
pub(crate) struct Board {
    pub(crate) counter: u64,
    pub(crate) report: u64,
}

/// A factor's state: first, second and largest moment, where the method keeps them.
fn moments_of(method: Method, factor: Factor) -> [Option<StateKind>; 3] {
    let kinds = match (method, factor) {
        (Method::Sgd, factor) => return [Some(StateKind::Momentum(factor)), None, None],
        (Method::Full, _) => return [None; 3],
        (Method::Factored, Factor::A) => [
            StateKind::TangentY,
            StateKind::ColMeans,
            StateKind::MaxColMeans,
        ],
        (Method::Factored, Factor::B) => [
            StateKind::TangentZ,
            StateKind::RowMeans,
            StateKind::MaxRowMeans,
        ],
        (Method::Lora | Method::Efficient, factor) => {
            Moment::ALL.map(|moment| StateKind::Factor(moment, factor))
        }
    };
    kinds.map(Some)
}

/// An adapter.
///
/// # Errors
/// [`Error::Unsupported`] for a rank above [`MAX_RANK`], for dimensions of more than 2^30, for
/// 8-bit moments of f64 parameters and for tensors that are not aligned, [`Error::Backend`] for
/// state that is not ours.
pub(crate) fn pair(
    slot: &AdapterSlot,
    io: &AdapterIo<'_>,
    board: Board,
    arena: &mut Arena,
) -> Result<model::Pair, Error> {
    let (spec, method, r) = (&slot.spec, slot.hyper.method, slot.spec.r);
    check_supported(slot)?;
    check_pair_aligned(slot, io)?;
    let address = |kind| address(&slot.state, kind);
    let if_kept = |kind: Option<StateKind>| kind.map_or(Ok(0), address);
    let in_f64 = pair_in_f64(slot);
    let size = if in_f64 { 8 } else { 4 };
    let lens = [spec.n, spec.m];
    let factors = [io.a.view(), io.b.view()];
    let gradients = [&io.grad_a, &io.grad_b];
    let wide_parts = [spec.m.div_ceil(WIDE_ROWS), spec.n.div_ceil(STRIP)];
    let mut pair = model::Pair {
        hyper: hyper(&slot.hyper, in_f64),
        s: spec.s(),
        report: board.report,
        counter: board.counter,
        r: r as i32,
        width: width(r, in_f64) as i32,
        wide_ld: leading(spec.n) as i32,
        wide_rows: WIDE_ROWS as i32,
        name: hash(&spec.name),
        ..Default::default()
    };
    for k in 0..2 {
        let (len, ld, chunk) = (lens[k], leading(lens[k]), chunk(r));
        let chunk_count = len.div_ceil(chunk);
        let factor = Factor::ALL[k];
        let [first, second, largest] = moments_of(method, factor);
        let mut take = |wanted: bool, count: usize, size: usize| {
            if wanted { arena.take(count, size) } else { 0 }
        };
        let (factored, full) = (method == Method::Factored, method == Method::Full);
        let stacks = [2 * r, 3 * r]
            .into_iter()
            .take(if factored { 2 } else { 0 });
        let most = stacks.map(|cols| products(r, cols));
        let most = most.fold(products(2 * r, 2 * r), usize::max);
        pair.side[k] = model::Side {
            f: view(&factors[k], k == 1),
            g: view(gradients[k], k == 1),
            first: if_kept(first)?,
            second: if_kept(second)?,
            largest: if_kept(largest)?,
            master: address(StateKind::Master(factor))?,
            old: take(factored, r * ld, size),
            fresh: take(factored, r * ld, size),
            weights: take(factored, ld, size),
            panel: take(full, 2 * r * ld, size),
            parts: take(full, wide_parts[k] * r * ld, size),
            gradient: take(full, r * ld, size),
            products: take(true, chunk_count * most, 8),
            squares: take(true, chunk_count, 8),
            backup: 0,
            len: len as i32,
            ld: ld as i32,
            chunk: chunk as i32,
            chunk_count: chunk_count as i32,
            part_count: wide_parts[k] as i32,
            pad: 0,
        };
    }
    if method == Method::Full {
        for (k, moment) in Moment::ALL.into_iter().enumerate() {
            pair.wide[k] = address(StateKind::Weight(moment))?;
            pair.scales[k] = address(StateKind::WeightScale(moment))?;
        }
        let first = slot.state.find(StateKind::Weight(Moment::First));
        let stored = first.map_or(DType::F32, |(tensor, _)| tensor.dtype);
        pair.wide_dtype = dtype_number(stored);
    }
    if let Some(base) = io.w0.as_ref().filter(|_| slot.hyper.decay_base) {
        pair.base = view(&base.view(), false);
    }
    let small = SMALL_COUNT[usize::from(method == Method::Factored)];
    pair.small = arena.take(small * r * r, 8);
    pair.coefficients = arena.take(2 * COEFFICIENTS * r * r.next_multiple_of(8), size);
    Ok(pair)
}

fn check_supported(slot: &AdapterSlot) -> Result<(), Error> {
    let spec = &slot.spec;
    let longest = spec.m.max(spec.n);
    let what = if spec.r > MAX_RANK {
        format!("rank {}: at most {MAX_RANK}", spec.r)
    } else if leading(longest).saturating_mul(spec.r) > i32::MAX as usize {
        format!("a factor of {} x {longest}: at most 2^31 numbers", spec.r)
    } else if pair_in_f64(slot) && slot.hyper.moment_dtype == MomentDType::EightBit {
        "8-bit moments of f64 parameters".into()
    } else {
        return Ok(());
    };
    Err(Error::Unsupported {
        subject: spec.subject(),
        backend: NAME.into(),
        what,
    })
}

/// A parameter without a pair.
///
/// # Errors
/// [`Error::Unsupported`] for tensors that are not aligned, [`Error::Backend`] for state that is not
/// ours.
pub(crate) fn param(
    slot: &ParamSlot,
    io: &ParamIo<'_>,
    board: Board,
    arena: &mut Arena,
) -> Result<model::Param, Error> {
    let [rows, cols] = slot.spec.shape();
    let value = io.value.view();
    check_aligned(&value, || slot.spec.subject(), "value")?;
    check_aligned(&io.grad, || slot.spec.subject(), "grad")?;
    let address = |kind| address(&slot.state, kind);
    let chunk_count = (rows * cols).div_ceil(ENTRIES);
    let [first, second, largest] = Moment::ALL.map(|moment| address(StateKind::Param(moment)));
    Ok(model::Param {
        value: view(&value, false),
        grad: view(&io.grad, false),
        hyper: hyper(&slot.hyper, slot.spec.dtype == DType::F64),
        first: first?,
        second: second?,
        largest: largest?,
        master: address(StateKind::ParamMaster)?,
        squares: arena.take(2 * chunk_count, 8),
        backup: 0,
        report: board.report,
        counter: board.counter,
        rows: rows as i64,
        cols: cols as i64,
        ld: leading(cols) as i64,
        chunk_count: chunk_count as i32,
        name: hash(&slot.spec.name),
    })
}
