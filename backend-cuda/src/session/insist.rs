//! A step that might overflow.

use lora_pro_core::Error;
use lora_pro_core::backend::{Control, Slots, StepIo};

use super::{Session, UNKNOWN};
use crate::memory::Block;
use crate::plan::{Pass, backup_passes};
use crate::snapshot::{self, Snapshot};

impl Session {
    /// Makes a step that was refused because it might overflow, and goes back on all of it where it
    /// did.
    pub(crate) fn insist(
        &mut self,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
    ) -> Result<(), Error> {
        let stream = control.stream;
        self.forget_refusals(stream)?;
        let backups = self.describe_backups(stream)?;
        let [out, back] = [false, true]
            .map(|back| backup_passes(&self.described.adapters, &self.described.params, back));
        let own: usize = self.passes.iter().map(|pass| pass.tasks.len()).sum();
        self.upload_tasks(stream, &out)?;
        self.launch(stream, &out, own)?;
        let state = Snapshot::take(stream, slots, &self.ids)?;

        self.begin(control, true, true)?;
        // W0 is left for the end: it has no way back.
        let is_base = |pass: &Pass| pass.kernel == "decay_base";
        let base = self
            .passes
            .iter()
            .position(is_base)
            .unwrap_or(self.passes.len());
        self.launch(stream, &self.passes[..base], 0)?;
        let tasks_before = |at: usize| self.passes[..at].iter().map(|pass| pass.tasks.len()).sum();
        let after = base + usize::from(base < self.passes.len());
        self.launch(stream, &self.passes[after..], tasks_before(after))?;
        let outcome = snapshot::check(self.device.as_ref(), stream, slots, io, &self.ids);
        if outcome.is_err() {
            self.launch(stream, &back, own)?;
            state.restore(stream, slots, &self.ids)?;
            self.counters
                .iter_mut()
                .for_each(|known| known.fill(UNKNOWN));
            self.upload_counters(stream, slots, false)?;
        } else {
            self.launch(stream, &self.passes[base..after], tasks_before(base))?;
        }
        self.forget_refusals(stream)?;
        drop(backups);
        outcome
    }

    /// Memory for copies of all factors and values, written into the description.
    fn describe_backups(&mut self, stream: u64) -> Result<Vec<Block>, Error> {
        let mut blocks = Vec::new();
        let mut place = |count: usize| -> Result<u64, Error> {
            let block = Block::zeros(&self.device, count * size_of::<f64>())?;
            let at = block.at();
            blocks.push(block);
            Ok(at)
        };
        for pair in &mut self.described.adapters {
            for side in &mut pair.side {
                side.backup = place(pair.r as usize * side.len as usize)?;
            }
        }
        for param in &mut self.described.params {
            param.backup = place((param.rows * param.cols) as usize)?;
        }
        if let Some(block) = &self.blocks.descriptors {
            block.write(stream, &self.described.bytes().0)?;
        }
        Ok(blocks)
    }
}
