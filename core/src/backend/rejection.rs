//! Which input entry is not finite. A backend searches only where its sums say that there is one.

use super::{Control, Slots, StepIo};
use crate::config::OnNonFinite;
use crate::error::Error;
use crate::report::{SkippedStep, StepReport};
use crate::tensor::MatRef;

/// Why a step is rejected, and whether a gradient is at fault: such a step may be skipped.
#[derive(Debug)]
pub struct Rejection {
    /// The error that names the entry.
    pub error: Error,
    /// Whether it is a gradient's.
    pub of_gradient: bool,
}

impl Rejection {
    /// The rejection of a step whose gradients have an entry that is not finite.
    pub fn of_gradient(error: Error) -> Self {
        Rejection {
            error,
            of_gradient: true,
        }
    }

    /// The error; or, where a gradient is not finite and such steps are to be skipped, the report of a
    /// step that changed nothing.
    pub fn into_outcome(self, control: &Control) -> Result<StepReport, Error> {
        let Error::NonFinite { subject, .. } = &self.error else {
            return Err(self.error);
        };
        if !self.of_gradient || control.on_non_finite == OnNonFinite::Error {
            return Err(self.error);
        }
        let skipped = SkippedStep {
            subject: subject.clone(),
            reason: self.error.to_string(),
        };
        Ok(StepReport {
            skipped: Some(skipped),
            ..StepReport::new(control.lr_factor, f64::NAN, 1.0)
        })
    }
}

/// Row, column and value of a view's first entry that is not finite.
pub type FirstNonFinite<'f> = dyn FnMut(&MatRef<'_>) -> Option<(usize, usize, f64)> + 'f;

/// [`FirstNonFinite`] for host memory: entry by entry, row by row.
pub fn find_non_finite(view: &MatRef<'_>) -> Option<(usize, usize, f64)> {
    let entries = (0..view.rows()).flat_map(|row| (0..view.cols()).map(move |col| (row, col)));
    let mut entries = entries.map(|(row, col)| (row, col, view.get(row, col)));
    entries.find(|entry| !entry.2.is_finite())
}

/// The rejection of a step in which a sum over a tensor of `subject` is not finite. It names the
/// first entry that is not finite, of the gradients in the caller's order, then of the parameters;
/// if all are finite, their squares overflow.
pub fn reject(
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    subject: &str,
    find: &mut FirstNonFinite<'_>,
) -> Rejection {
    if let Some(error) = gradients(slots, io, find) {
        return Rejection::of_gradient(error);
    }
    let overflow = || {
        let subject = format!("{subject}: a Gram matrix");
        Error::invalid(&subject, "entry", f64::INFINITY, "finite")
    };
    Rejection {
        error: values(slots, io, find).unwrap_or_else(overflow),
        of_gradient: false,
    }
}

fn gradients(
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    find: &mut FirstNonFinite<'_>,
) -> Option<Error> {
    for adapter in io.adapters.iter() {
        let subject = || slots.adapters[adapter.id.index()].spec.subject();
        let grad_a = named(find(&adapter.grad_a), "grad A", &subject);
        let error = grad_a.or_else(|| named(find(&adapter.grad_b), "grad B", &subject));
        if error.is_some() {
            return error;
        }
    }
    io.params.iter().find_map(|param| {
        let subject = || slots.params[param.id.index()].spec.subject();
        named(find(&param.grad), "grad", &subject)
    })
}

fn values(slots: &Slots<'_>, io: &StepIo<'_, '_>, find: &mut FirstNonFinite<'_>) -> Option<Error> {
    for adapter in io.adapters.iter() {
        let subject = || slots.adapters[adapter.id.index()].spec.subject();
        let b = named(find(&adapter.b.view()), "B", &subject);
        let error = b.or_else(|| named(find(&adapter.a.view()), "A", &subject));
        if error.is_some() {
            return error;
        }
    }
    io.params.iter().find_map(|param| {
        let subject = || slots.params[param.id.index()].spec.subject();
        named(find(&param.value.view()), "value", &subject)
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
