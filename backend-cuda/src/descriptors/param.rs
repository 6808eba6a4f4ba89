//! The descriptor of an unpaired parameter.

use lora_pro_core::backend::{Moment, ParamSlot, StateKind, param_layout};
use lora_pro_core::{DType, Error, ParamIo};

use super::SlotAddresses;
use super::arena::Arena;
use super::hyper::{hash, hyper};
use super::view::{check_aligned, view};
use crate::constants::CHUNK_ENTRIES;
use crate::model::{Param, Precision};
use crate::state_buffer::{address, leading};

/// An unpaired parameter.
///
/// # Errors
/// [`Error::Unsupported`] for tensors that are not aligned; an error that names the kind for state
/// that is absent or that another backend allocated.
pub(crate) fn param(
    slot: &ParamSlot,
    io: &ParamIo<'_>,
    addresses: SlotAddresses,
    arena: &mut Arena,
) -> Result<Param, Error> {
    let [rows, cols] = slot.spec.shape();
    let value = io.value.view();
    check_aligned(&value, || slot.spec.subject(), "value")?;
    check_aligned(&io.grad, || slot.spec.subject(), "grad")?;
    let chunk_count = (rows * cols).div_ceil(CHUNK_ENTRIES);
    let precision = match slot.spec.dtype {
        DType::F64 => Precision::F64,
        _ => Precision::F32,
    };
    let mut param = Param {
        value: view(&value),
        grad: view(&io.grad),
        hyper: hyper(&slot.hyper, precision),
        squares: arena.take(2 * chunk_count, 8),
        report: addresses.report,
        counter: addresses.counter,
        rows: rows as i64,
        cols: cols as i64,
        ld: leading(cols) as i64,
        chunk_count: chunk_count as i32,
        name: hash(&slot.spec.name),
        ..Param::default()
    };
    for tensor in param_layout(&slot.spec, &slot.hyper) {
        let at = address(&slot.state, tensor.kind, || slot.spec.subject())?;
        match tensor.kind {
            StateKind::Param(Moment::First) => param.first = at,
            StateKind::Param(Moment::Second) => param.second = at,
            StateKind::Param(Moment::MaxSecond) => param.largest = at,
            StateKind::ParamMaster => param.master = at,
            kind => return Err(super::adapter::misplaced(kind, &slot.spec.subject())),
        }
    }
    Ok(param)
}
