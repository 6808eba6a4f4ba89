//! A step that might overflow.

use std::mem::offset_of;

use bytemuck::bytes_of;
use lora_pro_core::Error;
use lora_pro_core::backend::{Control, Slots, StepIo};

use super::buffers::head;
use super::{DeviceState, UNKNOWN};
use crate::device_buffer::DeviceBuffer;
use crate::model::{self, CONTROL};
use crate::plan::{DECAY_BASE, Pass, backup_passes};
use crate::snapshot::{self, Snapshot};

fn task_count(passes: &[Pass]) -> usize {
    passes.iter().map(|pass| pass.tasks.len()).sum()
}

impl DeviceState {
    /// Makes a step that was rejected because it might overflow, and takes all of it back where it
    /// did: that is an error.
    pub(crate) fn retry_with_rollback(
        &mut self,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
    ) -> Result<(), Error> {
        let stream = control.stream;
        self.clear_rejections(stream)?;
        let backups = self.describe_backups(stream)?;
        let [out, back] = [false, true].map(|back| backup_passes(&self.descriptors, back));
        let own = task_count(&self.passes);
        self.upload_tasks(stream, &out)?;
        self.launch(stream, &out, own)?;
        let state = Snapshot::take(stream, slots, &self.ids)?;

        self.begin(control, true, true)?;
        // W0 is left for the end: it has no backup.
        let is_base = |pass: &Pass| pass.kernel == DECAY_BASE;
        let base = self.passes.iter().position(is_base);
        let base = base.unwrap_or(self.passes.len());
        let after = (base + 1).min(self.passes.len());
        self.launch(stream, &self.passes[..base], 0)?;
        self.launch(
            stream,
            &self.passes[after..],
            task_count(&self.passes[..after]),
        )?;
        let outcome = snapshot::check(self.device.as_ref(), stream, slots, io, &self.ids);
        if outcome.is_err() {
            self.launch(stream, &back, own)?;
            state.restore(stream, slots, &self.ids)?;
            self.counters
                .iter_mut()
                .for_each(|known| known.fill(UNKNOWN));
            self.upload_counters(stream, slots, false)?;
        } else {
            self.launch(
                stream,
                &self.passes[base..after],
                task_count(&self.passes[..base]),
            )?;
        }
        self.forbid_overflow(stream)?;
        self.clear_rejections(stream)?;
        drop(backups);
        outcome
    }

    /// A captured graph sets no control when it is replayed, and must not find this step's permission.
    fn forbid_overflow(&self, stream: u64) -> Result<(), Error> {
        let at = CONTROL + offset_of!(model::Control, allow_overflow);
        // SAFETY: the control stands behind the model, in the same buffer.
        unsafe {
            self.device
                .write(stream, head(&self.buffers) + at as u64, bytes_of(&0u32))
        }
    }

    /// Memory for copies of all factors and values, written into the descriptors.
    fn describe_backups(&mut self, stream: u64) -> Result<Vec<DeviceBuffer>, Error> {
        let mut buffers = Vec::new();
        let mut place = |count: usize| -> Result<u64, Error> {
            let buffer = DeviceBuffer::zeros(&self.device, count * size_of::<f64>())?;
            let at = buffer.at();
            buffers.push(buffer);
            Ok(at)
        };
        for adapter in &mut self.descriptors.adapters {
            for side in &mut adapter.side {
                side.backup = place(adapter.r as usize * side.len as usize)?;
            }
        }
        for param in &mut self.descriptors.params {
            param.backup = place((param.rows * param.cols) as usize)?;
        }
        if let Some(buffer) = &self.buffers.descriptors {
            buffer.write(stream, &self.descriptors.bytes().0)?;
        }
        Ok(buffers)
    }
}
