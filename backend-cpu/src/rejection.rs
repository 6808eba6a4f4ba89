//! Why a step is rejected before anything is written.

use lora_pro_core::backend::{Rejection, Slots, StepIo, find_non_finite, reject};

use crate::adapter::AdapterWork;
use crate::param::ParamWork;

/// What is wrong with the input. It is searched only where the sums of the first pass say that
/// something is.
pub(crate) fn first_rejection(
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    adapters: &[AdapterWork],
    params: &[ParamWork],
) -> Option<Rejection> {
    let mut ids = io.adapters.iter().map(|adapter| adapter.id.index());
    let adapter = ids.find(|id| !adapters[*id].is_finite());
    let mut ids = io.params.iter().map(|param| param.id.index());
    let param = ids.find(|id| !params[*id].is_finite());
    let subject = match (adapter, param) {
        (Some(id), _) => slots.adapters[id].spec.subject(),
        (None, Some(id)) => slots.params[id].spec.subject(),
        (None, None) => return None,
    };
    Some(reject(slots, io, &subject, &mut find_non_finite))
}
