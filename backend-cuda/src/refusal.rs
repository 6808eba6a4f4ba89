//! Why a step is refused before anything is written.

use lora_pro_core::{Error, MatRef, Refusal, Slots, StepIo, find_non_finite, first_refusal};

use crate::device::Device;
use crate::views::to_host;

/// What is wrong with what came in, once the device has said that something of `subject` is.
pub(crate) fn refusal(
    device: &dyn Device,
    stream: u64,
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    subject: &str,
) -> Result<Refusal, Error> {
    let mut failure = None;
    let mut find = |view: &MatRef<'_>| match to_host(device, stream, view) {
        Ok(host) => find_non_finite(&host.view()),
        Err(error) => {
            failure.get_or_insert(error);
            None
        }
    };
    let found = first_refusal(slots, io, &mut find);
    if let Some(error) = failure {
        return Err(error);
    }
    // Finite entries may have squares that are not.
    Ok(found.unwrap_or_else(|| Refusal {
        error: Error::invalid(
            &format!("{subject}: a Gram matrix"),
            "entry",
            f64::INFINITY,
            "finite",
        ),
        of_gradient: false,
    }))
}
