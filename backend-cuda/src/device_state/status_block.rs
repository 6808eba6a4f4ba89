//! What a device says of a step.

use bytemuck::{cast_slice, cast_slice_mut, from_bytes, from_bytes_mut};

use crate::model::{Report, Status};

/// The status of a step, and the reports of everything registered: adapters, then parameters.
pub(crate) struct StatusBlock {
    bytes: Vec<u8>,
    adapter_count: usize,
}

impl StatusBlock {
    /// Bytes for so many reports.
    pub(crate) fn size(reports: usize) -> usize {
        size_of::<Status>() + reports * size_of::<Report>()
    }

    /// Where a report stands.
    pub(crate) fn report_offset(index: usize) -> usize {
        Self::size(index)
    }

    /// From the device's bytes.
    pub(crate) fn new(bytes: Vec<u8>, adapter_count: usize) -> Self {
        StatusBlock {
            bytes,
            adapter_count,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn status(&self) -> &Status {
        from_bytes(&self.bytes[..size_of::<Status>()])
    }

    fn reports(&self) -> &[Report] {
        cast_slice(&self.bytes[size_of::<Status>()..])
    }

    /// Of all adapters, by their numbers.
    pub(crate) fn adapters(&self) -> &[Report] {
        &self.reports()[..self.adapter_count]
    }

    /// Of all unpaired parameters, by their numbers.
    pub(crate) fn params(&self) -> &[Report] {
        &self.reports()[self.adapter_count..]
    }

    /// Without the reasons of rejected steps.
    pub(crate) fn without_rejections(mut self) -> Self {
        let (status, reports) = self.bytes.split_at_mut(size_of::<Status>());
        let status: &mut Status = from_bytes_mut(status);
        (status.rejected, status.unreported, status.unreported_steps) = (0, 0, 0);
        for report in cast_slice_mut::<u8, Report>(reports) {
            report.rejected = 0;
        }
        self
    }
}
