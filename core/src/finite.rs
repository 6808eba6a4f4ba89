//! Which entry of what came in is not finite. A backend looks only where its sums say that there is
//! one.

use crate::{Control, Error, MatRef, NonFinite, Skip, Slots, StepIo, StepReport};

/// Why a step is refused, and whether a gradient is at fault: such a step may be skipped.
#[derive(Debug)]
pub struct Refusal {
    /// The error that names the entry.
    pub error: Error,
    /// Whether it is a gradient's.
    pub of_gradient: bool,
}

impl Refusal {
    /// The error; or, where a gradient is not finite and such steps are to be skipped, the report of a
    /// step that changed nothing.
    pub fn settle(self, control: &Control) -> Result<StepReport, Error> {
        let Error::NonFinite { subject, .. } = &self.error else {
            return Err(self.error);
        };
        if !self.of_gradient || control.on_non_finite == NonFinite::Error {
            return Err(self.error);
        }
        Ok(StepReport {
            lr_factor: control.lr_factor,
            grad_norm: f64::NAN,
            grad_clip: 1.0,
            skipped: Some(Skip {
                subject: subject.clone(),
                reason: self.error.to_string(),
            }),
            plan: None,
        })
    }
}

/// Row, column and value of a view's first entry that is not finite.
pub type Find<'f> = dyn FnMut(&MatRef<'_>) -> Option<(usize, usize, f64)> + 'f;

/// [`Find`] for host memory: entry by entry, row by row.
pub fn find_non_finite(view: &MatRef<'_>) -> Option<(usize, usize, f64)> {
    let entries = (0..view.rows()).flat_map(|row| (0..view.cols()).map(move |col| (row, col)));
    let mut entries = entries.map(|(row, col)| (row, col, view.get(row, col)));
    entries.find(|entry| !entry.2.is_finite())
}

/// Why a step is refused of which a sum over something of `subject` is not finite: the first entry
/// that is not, of the gradients in the caller's order, then of everything else; or else squares that
/// overflow.
pub fn refusal(
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    subject: &str,
    find: &mut Find<'_>,
) -> Refusal {
    if let Some(error) = gradients(slots, io, find) {
        return Refusal {
            error,
            of_gradient: true,
        };
    }
    let overflow = || {
        let subject = format!("{subject}: a Gram matrix");
        Error::invalid(&subject, "entry", f64::INFINITY, "finite")
    };
    Refusal {
        error: values(slots, io, find).unwrap_or_else(overflow),
        of_gradient: false,
    }
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
