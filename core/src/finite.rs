//! Which entry of what came in is not finite. A backend looks only where its sums say that there is
//! one.

use crate::{Error, MatRef, Slots, StepIo};

/// Why a step is refused, and whether a gradient is at fault: such a step may be skipped.
#[derive(Debug)]
pub struct Refusal {
    /// The error that names the entry.
    pub error: Error,
    /// Whether it is a gradient's.
    pub of_gradient: bool,
}

/// Row, column and value of a view's first entry that is not finite.
pub type Find<'f> = dyn FnMut(&MatRef<'_>) -> Option<(usize, usize, f64)> + 'f;

/// [`Find`] for host memory: entry by entry, row by row.
pub fn find_non_finite(view: &MatRef<'_>) -> Option<(usize, usize, f64)> {
    let entries = (0..view.rows()).flat_map(|row| (0..view.cols()).map(move |col| (row, col)));
    let mut entries = entries.map(|(row, col)| (row, col, view.get(row, col)));
    entries.find(|entry| !entry.2.is_finite())
}

/// The first entry that is not finite: of the gradients in the caller's order, then of everything
/// else.
pub fn first_refusal(
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    find: &mut Find<'_>,
) -> Option<Refusal> {
    if let Some(error) = gradients(slots, io, find) {
        return Some(Refusal {
            error,
            of_gradient: true,
        });
    }
    let error = values(slots, io, find)?;
    Some(Refusal {
        error,
        of_gradient: false,
    })
}

fn gradients(slots: &Slots<'_>, io: &StepIo<'_, '_>, find: &mut Find<'_>) -> Option<Error> {
    for pair in io.pairs.iter() {
        let subject = || slots.pairs[pair.id.0].spec.subject();
        let grad_a = named(find(&pair.grad_a), "grad A", &subject);
        let error = grad_a.or_else(|| named(find(&pair.grad_b), "grad B", &subject));
        if error.is_some() {
            return error;
        }
    }
    io.params.iter().find_map(|param| {
        let subject = || slots.params[param.id.0].spec.subject();
        named(find(&param.grad), "grad", &subject)
    })
}

fn values(slots: &Slots<'_>, io: &StepIo<'_, '_>, find: &mut Find<'_>) -> Option<Error> {
    for pair in io.pairs.iter() {
        let subject = || slots.pairs[pair.id.0].spec.subject();
        let b = named(find(&pair.b.as_ref()), "B", &subject);
        let error = b.or_else(|| named(find(&pair.a.as_ref()), "A", &subject));
        if error.is_some() {
            return error;
        }
    }
    io.params.iter().find_map(|param| {
        let subject = || slots.params[param.id.0].spec.subject();
        named(find(&param.value.as_ref()), "value", &subject)
    })
}

fn named(
    found: Option<(usize, usize, f64)>,
    tensor: &'static str,
    subject: &dyn Fn() -> String,
) -> Option<Error> {
    let (row, col, value) = found?;
    Some(Error::NonFinite {
        subject: subject(),
        tensor,
        row,
        col,
        value,
    })
}
