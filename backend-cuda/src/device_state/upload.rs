//! Brings what is on the device up to date for a step.

use std::sync::Arc;

use bytemuck::{bytes_of, cast_slice};
use lora_pro_core::Error;
use lora_pro_core::backend::{Control, Slots, StepIo};

use super::buffers::{at, head, reserve};
use super::{DeviceState, StatusBlock, UNKNOWN, counts};
use crate::NAME;
use crate::descriptors::{self, Arena, Descriptors, SlotAddresses};
use crate::device_buffer::DeviceBuffer;
use crate::model::{self, CONTROL, Model, Task};
use crate::plan::{Pass, passes};

/// Bytes of the model, and of the control behind it.
const HEAD: usize = CONTROL + size_of::<model::Control>();

/// Numbers in their order, each with its place in a list.
fn in_order(ids: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
    let mut all: Vec<_> = ids.enumerate().map(|(place, id)| (id, place)).collect();
    all.sort_unstable();
    all
}

impl DeviceState {
    /// # Errors
    /// Where memory is short, where another backend allocated the state, and where anything would
    /// have to change while a graph is captured.
    pub(crate) fn prepare(
        &mut self,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
        capturing: bool,
    ) -> Result<(), Error> {
        let moved = self.reserve_status(slots, capturing)?;
        let of_adapters = in_order(io.adapters.iter().map(|adapter| adapter.id.index()));
        let of_params = in_order(io.params.iter().map(|param| param.id.index()));
        let new = self.describe(slots, io, [&of_adapters, &of_params], capturing)?;
        let incomplete = self.buffers.descriptors.is_none() || self.buffers.tasks.is_none();
        if moved || incomplete || self.descriptors != new {
            refuse_capture(capturing)?;
            self.upload(control.stream, new)?;
        }
        self.grad_scale = control.grad_scale;
        self.ids = [of_adapters, of_params].map(|all| all.into_iter().map(|(id, _)| id).collect());
        self.upload_counters(control.stream, slots, capturing)
    }

    /// Room for counters and reports, whose addresses stand in the descriptors. Whether it has moved.
    fn reserve_status(&mut self, slots: &Slots<'_>, capturing: bool) -> Result<bool, Error> {
        if self.has_run() && !self.is_outgrown_by(slots) {
            return Ok(false);
        }
        refuse_capture(capturing)?;
        let counts = counts(slots);
        let count = counts[0] + counts[1];
        (self.buffers.counters, self.buffers.status) = (None, None);
        if self.buffers.head.is_none() {
            let head = Arc::new(DeviceBuffer::zeros(&self.device, HEAD)?);
            self.graph_parameters.point_to(&head);
            self.buffers.head = Some(head);
        }
        let counters = (count * size_of::<u64>()).max(1);
        reserve(&self.device, &mut self.buffers.counters, counters)?;
        let status = StatusBlock::size(count);
        reserve(&self.device, &mut self.buffers.status, status)?;
        self.counters = counts.map(|count| vec![UNKNOWN; count]);
        Ok(true)
    }

    /// Describes the set, in scratch memory that is large enough.
    fn describe(
        &mut self,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        [of_adapters, of_params]: [&[(usize, usize)]; 2],
        capturing: bool,
    ) -> Result<Descriptors, Error> {
        loop {
            let mut arena = Arena::new(at(&self.buffers.scratch));
            let mut new = Descriptors::default();
            for (id, place) in of_adapters {
                let (slot, io) = (&slots.adapters[*id], &io.adapters[*place]);
                let addresses = self.slot_addresses(*id);
                let adapter = descriptors::adapter(slot, io, addresses, &mut arena)?;
                new.adapters.push(adapter);
                new.methods.push(slot.hyper.method);
            }
            for (id, place) in of_params {
                let (slot, io) = (&slots.params[*id], &io.params[*place]);
                let addresses = self.slot_addresses(slots.adapters.len() + id);
                new.params
                    .push(descriptors::param(slot, io, addresses, &mut arena)?);
            }
            let scratch = self.buffers.scratch.as_ref();
            if scratch.is_some_and(|scratch| scratch.bytes() >= arena.used()) {
                return Ok(new);
            }
            refuse_capture(capturing)?;
            reserve(&self.device, &mut self.buffers.scratch, arena.used().max(1))?;
        }
    }

    fn slot_addresses(&self, index: usize) -> SlotAddresses {
        let report = StatusBlock::report_offset(index);
        SlotAddresses {
            counter: at(&self.buffers.counters) + (index * size_of::<u64>()) as u64,
            report: at(&self.buffers.status) + report as u64,
        }
    }

    /// Uploads descriptors, and with them everything that follows from them.
    fn upload(&mut self, stream: u64, new: Descriptors) -> Result<(), Error> {
        let (bytes, of_adapters) = new.bytes();
        let size = bytes.len().max(1);
        reserve(&self.device, &mut self.buffers.descriptors, size)?;
        if self.buffers.tasks.is_none() || !new.differs_only_in_addresses(&self.descriptors) {
            self.plan(stream, &new)?;
        }
        let descriptors = at(&self.buffers.descriptors);
        let model = Model {
            adapters: descriptors,
            params: descriptors + of_adapters as u64,
            control: head(&self.buffers) + CONTROL as u64,
            status: at(&self.buffers.status),
            adapter_count: new.adapters.len() as i32,
            param_count: new.params.len() as i32,
        };
        if let Some(buffer) = &self.buffers.descriptors {
            buffer.write(stream, &bytes)?;
        }
        if let Some(buffer) = &self.buffers.head {
            buffer.write(stream, bytes_of(&model))?;
        }
        self.descriptors = new;
        Ok(())
    }

    /// Plans the launches of another set.
    fn plan(&mut self, stream: u64, descriptors: &Descriptors) -> Result<(), Error> {
        let new = passes(descriptors);
        if new != self.passes || !descriptors.same_layout(&self.descriptors) {
            // Scratch memory is laid out anew, and kernels count on zeros beyond the last column.
            if let Some(scratch) = &self.buffers.scratch {
                // SAFETY: the buffer has as many bytes, and owns them.
                unsafe { self.device.fill(stream, scratch.at(), 0, scratch.bytes())? };
            }
        }
        if new != self.passes || self.buffers.tasks.is_none() {
            self.passes = new;
            self.upload_tasks(stream, &[])?;
        }
        Ok(())
    }

    /// Uploads the tasks of all passes, and of some more behind them.
    pub(super) fn upload_tasks(&mut self, stream: u64, more: &[Pass]) -> Result<(), Error> {
        let all = self.passes.iter().chain(more);
        let tasks: Vec<Task> = all.flat_map(|pass| pass.tasks.iter().copied()).collect();
        let bytes: &[u8] = cast_slice(&tasks);
        reserve(&self.device, &mut self.buffers.tasks, bytes.len().max(1))?;
        match &self.buffers.tasks {
            Some(buffer) => buffer.write(stream, bytes),
            None => Ok(()),
        }
    }

    /// Uploads counters that the device did not count: all of them at first, later those of what was
    /// loaded from a checkpoint.
    pub(super) fn upload_counters(
        &mut self,
        stream: u64,
        slots: &Slots<'_>,
        capturing: bool,
    ) -> Result<(), Error> {
        let base = at(&self.buffers.counters);
        let adapters = self.ids[0]
            .iter()
            .map(|id| (0, *id, slots.adapters[*id].state.step));
        let params = self.ids[1]
            .iter()
            .map(|id| (1, *id, slots.params[*id].state.step));
        let all: Vec<_> = adapters.chain(params).collect();
        for (kind, id, step) in all {
            if self.counters[kind][id] == step {
                continue;
            }
            refuse_capture(capturing)?;
            let index = kind * slots.adapters.len() + id;
            let to = base + (index * size_of::<u64>()) as u64;
            // SAFETY: the counters have room for every adapter and parameter.
            unsafe { self.device.write(stream, to, bytes_of(&step))? };
            self.counters[kind][id] = step;
        }
        Ok(())
    }
}

fn refuse_capture(capturing: bool) -> Result<(), Error> {
    if !capturing {
        return Ok(());
    }
    let reason = "the set of adapters, their hyper-parameters or where their tensors are has changed, \
                  which a captured graph cannot follow: make one step of the same tensors before the \
                  capture";
    Err(Error::backend(NAME, reason))
}
