//! Why a step is refused before anything is written.

use lora_pro_core::{Error, MatRef, Slots, StepIo};

use crate::pair::PairWork;
use crate::param::ParamWork;

/// What is wrong, and whether it is a gradient: those may be skipped.
pub(crate) struct Refusal {
    pub(crate) error: Error,
    pub(crate) of_gradient: bool,
}

/// The first entry that is not finite: of the gradients in the caller's order, then of everything
/// else. Looked for only where the survey's sums say that there is one.
pub(crate) fn first_refusal(
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    pairs: &[PairWork],
    params: &[ParamWork],
) -> Option<Refusal> {
    let pairs_finite = io.pairs.iter().all(|pair| pairs[pair.id.0].is_finite());
    let finite = |x: &[f64; 2]| x.iter().all(|x| x.is_finite());
    if pairs_finite
        && io
            .params
            .iter()
            .all(|param| finite(&params[param.id.0].squares))
    {
        return None;
    }
    gradients(slots, io)
        .or_else(|| values(slots, io))
        .or_else(|| {
            let of = |subject: String| {
                Error::invalid(
                    &format!("{subject}: a Gram matrix"),
                    "entry",
                    f64::INFINITY,
                    "finite",
                )
            };
            let pair = io.pairs.iter().find(|pair| !pairs[pair.id.0].is_finite());
            let param = io
                .params
                .iter()
                .find(|param| !finite(&params[param.id.0].squares));
            let error = match (pair, param) {
                (Some(pair), _) => of(slots.pairs[pair.id.0].spec.subject()),
                (None, Some(param)) => of(slots.params[param.id.0].spec.subject()),
                (None, None) => return None,
            };
            Some(Refusal {
                error,
                of_gradient: false,
            })
        })
}

fn gradients(slots: &Slots<'_>, io: &StepIo<'_, '_>) -> Option<Refusal> {
    let pairs = io.pairs.iter().find_map(|pair| {
        let subject = || slots.pairs[pair.id.0].spec.subject();
        check(&pair.grad_a, "grad A", &subject).or_else(|| check(&pair.grad_b, "grad B", &subject))
    });
    let params = || {
        io.params.iter().find_map(|param| {
            check(&param.grad, "grad", &|| {
                slots.params[param.id.0].spec.subject()
            })
        })
    };
    let error = pairs.or_else(params)?;
    Some(Refusal {
        error,
        of_gradient: true,
    })
}

fn values(slots: &Slots<'_>, io: &StepIo<'_, '_>) -> Option<Refusal> {
    let pairs = io.pairs.iter().find_map(|pair| {
        let subject = || slots.pairs[pair.id.0].spec.subject();
        let b = check(&pair.b.as_ref(), "B", &subject);
        b.or_else(|| check(&pair.a.as_ref(), "A", &subject))
    });
    let params = || {
        io.params.iter().find_map(|param| {
            let subject = || slots.params[param.id.0].spec.subject();
            check(&param.value.as_ref(), "value", &subject)
        })
    };
    let error = pairs.or_else(params)?;
    Some(Refusal {
        error,
        of_gradient: false,
    })
}

fn check(view: &MatRef<'_>, tensor: &'static str, subject: &dyn Fn() -> String) -> Option<Error> {
    let entries = (0..view.rows()).flat_map(|row| (0..view.cols()).map(move |col| (row, col)));
    let (row, col) = entries
        .into_iter()
        .find(|(row, col)| !view.get(*row, *col).is_finite())?;
    let value = view.get(row, col);
    Some(Error::NonFinite {
        subject: subject(),
        tensor,
        row,
        col,
        value,
    })
}
