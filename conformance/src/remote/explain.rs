//! A child's failure in the words of core's errors.

use lora_pro_core::backend::{Slots, StepIo};
use lora_pro_core::{AdapterIo, Error, ParamIo};

use super::failed;
use super::protocol::{Failure, FailureKind};
use super::tensors::entries;

/// How errors call the adapter or parameter of this name.
pub(super) fn subject(name: &str, slots: &Slots<'_>, io: &StepIo<'_, '_>) -> String {
    let params = io
        .params
        .iter()
        .map(|param| &slots.params[param.id.index()].spec);
    match params.into_iter().find(|spec| spec.name == name) {
        Some(spec) => spec.subject(),
        None => format!("adapter `{name}`"),
    }
}

/// The child's failure as an error of core. Where it speaks of a number that is not finite, the
/// number is looked up in what it was given.
pub(super) fn explain(
    backend: &str,
    failure: Failure,
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
) -> Error {
    let Some(name) = &failure.adapter else {
        return failed(backend, &failure.message);
    };
    let subject = subject(name, slots, io);
    let found = (failure.kind == FailureKind::NonFinite)
        .then(|| non_finite(name, slots, io))
        .flatten();
    match found {
        Some((tensor, (row, col, value))) => Error::NonFinite {
            subject,
            tensor,
            row,
            col,
            value,
        },
        None => failed(backend, &format!("{subject}: {}", failure.message)),
    }
}

type NonFiniteEntry = (usize, usize, f64);

fn non_finite(
    name: &str,
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
) -> Option<(&'static str, NonFiniteEntry)> {
    let adapter = |adapter: &&AdapterIo<'_>| slots.adapters[adapter.id.index()].spec.name == name;
    let param = |param: &&ParamIo<'_>| slots.params[param.id.index()].spec.name == name;
    let mut given = Vec::new();
    if let Some(adapter) = io.adapters.iter().find(adapter) {
        given.push(("grad A", adapter.grad_a));
        given.push(("grad B", adapter.grad_b));
        given.push(("B", adapter.b.view()));
        given.push(("A", adapter.a.view()));
    }
    if let Some(param) = io.params.iter().find(param) {
        given.push(("grad", param.grad));
        given.push(("value", param.value.view()));
    }
    given.iter().find_map(|(tensor, view)| {
        let entry = entries(view).find(|(_, _, x)| !x.is_finite())?;
        Some((*tensor, entry))
    })
}
