//! The descriptor of an adapter.

use lora_pro_core::backend::{AdapterSlot, Factor, Moment, StateKind, adapter_layout};
use lora_pro_core::{AdapterIo, DType, Error, Method, MomentDType};

use super::SlotAddresses;
use super::arena::Arena;
use super::hyper::{hash, hyper};
use super::tiling::{chunk, products, width};
use super::view::{check_aligned, dtype_code, transposed_view, view};
use crate::NAME;
use crate::constants::{
    COEFFICIENTS, MATRICES, MATRICES_FACTORED, MAX_RANK, OCTET, STRIP, WIDE_ROWS,
};
use crate::model::{Adapter, Precision, Side};
use crate::state_buffer::{address, leading};

/// An adapter.
///
/// # Errors
/// [`Error::Unsupported`] for a rank above [`MAX_RANK`], for factors of more than 2^31 numbers, for
/// 8-bit moments of f64 parameters and for tensors that are not aligned; an error that names the kind
/// for state that is absent or that another backend allocated.
pub(crate) fn adapter(
    slot: &AdapterSlot,
    io: &AdapterIo<'_>,
    addresses: SlotAddresses,
    arena: &mut Arena,
) -> Result<Adapter, Error> {
    check_supported(slot)?;
    check_tensors_aligned(slot, io)?;
    let (spec, method, r) = (&slot.spec, slot.hyper.method, slot.spec.r);
    let precision = precision_of(slot);
    let mut adapter = Adapter {
        hyper: hyper(&slot.hyper, precision),
        s: spec.s(),
        report: addresses.report,
        counter: addresses.counter,
        r: r as i32,
        width: width(r, precision) as i32,
        wide_ld: leading(spec.n) as i32,
        wide_rows: WIDE_ROWS as i32,
        name: hash(&spec.name),
        ..Adapter::default()
    };
    let lens = [spec.n, spec.m];
    let part_counts = [spec.m.div_ceil(WIDE_ROWS), spec.n.div_ceil(STRIP)];
    for k in 0..2 {
        adapter.side[k] = side(method, r, lens[k], part_counts[k], precision, arena);
    }
    adapter.side[0].f = view(&io.a.view());
    adapter.side[0].g = view(&io.grad_a);
    adapter.side[1].f = transposed_view(&io.b.view());
    adapter.side[1].g = transposed_view(&io.grad_b);
    place_state(&mut adapter, slot)?;
    if let Some(base) = io.w0.as_ref().filter(|_| slot.hyper.decay_base) {
        adapter.base = view(&base.view());
    }
    let matrices = match method {
        Method::Lora | Method::Sgd | Method::Efficient | Method::Full => MATRICES,
        Method::Factored => MATRICES_FACTORED,
    };
    adapter.rank_matrices = arena.take(matrices * r * r, 8);
    let coefficients = 2 * COEFFICIENTS * r * r.next_multiple_of(OCTET);
    adapter.coefficients = arena.take(coefficients, precision.size());
    Ok(adapter)
}

/// f64 where anything that grows with the adapter is stored in f64.
fn precision_of(slot: &AdapterSlot) -> Precision {
    let f64_moments =
        slot.hyper.method == Method::Full && slot.hyper.moment_dtype == MomentDType::F64;
    if slot.spec.dtype == DType::F64 || f64_moments {
        Precision::F64
    } else {
        Precision::F32
    }
}

/// Shapes and scratch memory of one side.
fn side(
    method: Method,
    r: usize,
    len: usize,
    part_count: usize,
    precision: Precision,
    arena: &mut Arena,
) -> Side {
    let (ld, chunk, size) = (leading(len), chunk(r), precision.size());
    let chunk_count = len.div_ceil(chunk);
    let mut side = Side {
        len: len as i32,
        ld: ld as i32,
        chunk: chunk as i32,
        chunk_count: chunk_count as i32,
        part_count: part_count as i32,
        squares: arena.take(chunk_count, 8),
        ..Side::default()
    };
    // [F; G][F; G]', and in the factored mode F w [F; Y]' and F1 [F1; F; Y]'.
    let mut most = products(2 * r, 2 * r);
    match method {
        Method::Lora | Method::Sgd | Method::Efficient => (),
        Method::Factored => {
            most = most.max(products(r, 2 * r)).max(products(r, 3 * r));
            side.old = arena.take(r * ld, size);
            side.updated = arena.take(r * ld, size);
            side.weights = arena.take(ld, size);
        }
        Method::Full => {
            side.panel = arena.take(2 * r * ld, size);
            side.parts = arena.take(part_count * r * ld, size);
            side.gradient = arena.take(r * ld, size);
        }
    }
    side.products = arena.take(chunk_count * most, 8);
    side
}

/// The addresses of all state that the method remembers.
fn place_state(adapter: &mut Adapter, slot: &AdapterSlot) -> Result<(), Error> {
    use Factor::{A, B};
    use Moment::{First, MaxSecond, Second};
    use StateKind as K;
    for tensor in adapter_layout(&slot.spec, &slot.hyper) {
        let at = address(&slot.state, tensor.kind, || slot.spec.subject())?;
        let [a, b] = &mut adapter.side;
        match tensor.kind {
            K::Momentum(A) | K::Factor(First, A) | K::TangentY => a.first = at,
            K::Momentum(B) | K::Factor(First, B) | K::TangentZ => b.first = at,
            K::Factor(Second, A) | K::ColMeans => a.second = at,
            K::Factor(Second, B) | K::RowMeans => b.second = at,
            K::Factor(MaxSecond, A) | K::MaxColMeans => a.largest = at,
            K::Factor(MaxSecond, B) | K::MaxRowMeans => b.largest = at,
            K::Master(A) => a.master = at,
            K::Master(B) => b.master = at,
            K::Weight(moment) => {
                adapter.wide[index(moment)] = at;
                adapter.wide_dtype = dtype_code(tensor.dtype);
            }
            K::WeightScale(moment) => adapter.scales[index(moment)] = at,
            kind @ (K::Param(_) | K::ParamMaster) => {
                return Err(misplaced(kind, &slot.spec.subject()));
            }
        }
    }
    Ok(())
}

/// The place of a moment among an adapter's weight moments.
fn index(moment: Moment) -> usize {
    match moment {
        Moment::First => 0,
        Moment::Second => 1,
        Moment::MaxSecond => 2,
    }
}

/// The error for a state tensor that its owner cannot have.
pub(super) fn misplaced(kind: StateKind, subject: &str) -> Error {
    Error::invalid(subject, "state", kind, "of another owner")
}

fn check_tensors_aligned(slot: &AdapterSlot, io: &AdapterIo<'_>) -> Result<(), Error> {
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

fn check_supported(slot: &AdapterSlot) -> Result<(), Error> {
    let spec = &slot.spec;
    let longest = spec.m.max(spec.n);
    let in_f64 = precision_of(slot) == Precision::F64;
    let what = if spec.r > MAX_RANK {
        format!("rank {}: at most {MAX_RANK}", spec.r)
    } else if leading(longest).saturating_mul(spec.r) > i32::MAX as usize {
        format!("a factor of {} x {longest}: at most 2^31 numbers", spec.r)
    } else if in_f64 && slot.hyper.moment_dtype == MomentDType::EightBit {
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
