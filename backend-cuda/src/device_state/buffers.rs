//! Device memory that grows with the set of adapters, or with what is registered.

use std::sync::Arc;

use lora_pro_core::Error;

use crate::device::Device;
use crate::device_buffer::DeviceBuffer;

/// One buffer for each use.
#[derive(Default)]
pub(super) struct Buffers {
    /// The model, and what concerns the whole step. Graph parameters may keep it.
    pub(super) head: Option<Arc<DeviceBuffer>>,
    /// Status and reports of everything registered: what is read after a step.
    pub(super) status: Option<DeviceBuffer>,
    /// Adapters and parameters.
    pub(super) descriptors: Option<DeviceBuffer>,
    pub(super) tasks: Option<DeviceBuffer>,
    /// Of everything registered.
    pub(super) counters: Option<DeviceBuffer>,
    pub(super) scratch: Option<DeviceBuffer>,
}

/// Makes sure that a buffer has so many bytes.
pub(super) fn reserve(
    device: &Arc<dyn Device>,
    buffer: &mut Option<DeviceBuffer>,
    bytes: usize,
) -> Result<(), Error> {
    if buffer.as_ref().is_some_and(|old| old.bytes() >= bytes) {
        return Ok(());
    }
    // The old one first: both might not fit.
    *buffer = None;
    *buffer = Some(DeviceBuffer::zeros(device, bytes.next_multiple_of(256))?);
    Ok(())
}

/// Address of a buffer; 0 before it is allocated.
pub(super) fn at(buffer: &Option<DeviceBuffer>) -> u64 {
    buffer.as_ref().map_or(0, DeviceBuffer::at)
}

/// The same of the head.
pub(super) fn head(buffers: &Buffers) -> u64 {
    buffers.head.as_ref().map_or(0, |buffer| buffer.at())
}
