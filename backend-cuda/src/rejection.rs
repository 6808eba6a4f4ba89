//! Why a step is rejected before anything is written.

use lora_pro_core::backend::{Rejection, Slots, StepIo, find_non_finite, reject};
use lora_pro_core::{Error, MatRef};

use crate::device::Device;
use crate::views::to_host;

/// What is wrong with what came in, once the device has said that something of `subject` is.
pub(crate) fn find_rejection(
    device: &dyn Device,
    stream: u64,
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    subject: &str,
) -> Result<Rejection, Error> {
    let mut failure = None;
    let mut find = |view: &MatRef<'_>| match to_host(device, stream, view) {
        Ok(host) => find_non_finite(&host.view()),
        Err(error) => {
            failure.get_or_insert(error);
            None
        }
    };
    let found = reject(slots, io, subject, &mut find);
    failure.map_or(Ok(found), Err)
}
