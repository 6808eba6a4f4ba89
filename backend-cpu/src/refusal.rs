//! Why a step is refused before anything is written.

use lora_pro_core::backend::{Rejection, Slots, StepIo, find_non_finite, reject};

use crate::pair::PairWork;
use crate::param::ParamWork;

/// What is wrong with what came in. Looked for only where the survey's sums say that there is
/// something.
pub(crate) fn first_refusal(
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    adapters: &[PairWork],
    params: &[ParamWork],
) -> Option<Rejection> {
    let finite = |x: &[f64; 2]| x.iter().all(|x| x.is_finite());
    let pair = io
        .adapters
        .iter()
        .find(|pair| !adapters[pair.id.index()].is_finite());
    let param = io
        .params
        .iter()
        .find(|param| !finite(&params[param.id.index()].squares));
    let subject = match (pair, param) {
        (Some(pair), _) => slots.adapters[pair.id.index()].spec.subject(),
        (None, Some(param)) => slots.params[param.id.index()].spec.subject(),
        (None, None) => return None,
    };
    Some(reject(slots, io, &subject, &mut find_non_finite))
}
