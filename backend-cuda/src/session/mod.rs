//! What is on the device from step to step: the model's description, the tasks of the launches,
//! counters, reports, scratch memory. It changes when the set of adapters does; a step of the same
//! set uploads nothing and allocates nothing.

mod blocks;
mod described;
mod insist;

use std::sync::Arc;

use bytemuck::{bytes_of, cast_slice};
use lora_pro_core::Error;
use lora_pro_core::backend::{Control, Slots, StepIo};

use blocks::{Blocks, at, head, reserve};
use described::Described;

use crate::NAME;
use crate::describe::{self, Arena, Board};
use crate::device::{Device, Launch};
use crate::dial::Dial;
use crate::memory::Block;
use crate::model::{self, Model, Report, Status, Task};
use crate::plan::{Pass, passes};

/// A counter that no adapter has: it has not been uploaded.
const UNKNOWN: u64 = u64::MAX;

/// See the module's head.
pub(crate) struct Session {
    device: Arc<dyn Device>,
    blocks: Blocks,
    described: Described,
    /// Numbers of the adapters and parameters of the set.
    ids: [Vec<usize>; 2],
    passes: Vec<Pass>,
    /// Counters as the host last saw them, of all adapters and then of all parameters.
    counters: [Vec<u64>; 2],
    grad_scale: f64,
    dial: Dial,
}

/// Where the control stands behind the model.
pub(crate) const CONTROL: usize = 64;
const HEAD: usize = CONTROL + size_of::<model::Control>();

/// How many adapters and parameters are registered.
fn counts(slots: &Slots<'_>) -> [usize; 2] {
    [slots.adapters.len(), slots.params.len()]
}

/// Numbers in their order, each with its place in a list.
fn in_order(ids: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
    let mut all: Vec<_> = ids.enumerate().map(|(place, id)| (id, place)).collect();
    all.sort_unstable();
    all
}

impl Session {
    pub(crate) fn new(device: Arc<dyn Device>) -> Self {
        Session {
            dial: Dial::new(device.clone()),
            device,
            blocks: Blocks::default(),
            described: Described::default(),
            ids: [vec![], vec![]],
            passes: vec![],
            counters: [vec![], vec![]],
            grad_scale: 1.0,
        }
    }

    /// Numbers of the adapters and parameters of the last step.
    pub(crate) fn ids(&self) -> &[Vec<usize>; 2] {
        &self.ids
    }

    /// Numbers of all whose counters and reports are on the device.
    pub(crate) fn known(&self) -> [Vec<usize>; 2] {
        let known = |counters: &Vec<u64>| {
            let all = 0..counters.len();
            all.filter(|id| counters[*id] != UNKNOWN).collect()
        };
        [known(&self.counters[0]), known(&self.counters[1])]
    }

    /// What sets the factors of captured steps.
    pub(crate) fn dial(&self) -> &Dial {
        &self.dial
    }

    /// The factor on gradients of the last step.
    pub(crate) fn grad_scale(&self) -> f64 {
        self.grad_scale
    }

    /// Whether there was a step.
    pub(crate) fn has_run(&self) -> bool {
        self.blocks.board.is_some()
    }

    /// Whether more is registered than when counters and reports were laid out.
    pub(crate) fn is_outgrown_by(&self, slots: &Slots<'_>) -> bool {
        counts(slots) != [0, 1].map(|k| self.counters[k].len())
    }

    /// Splits what is there for everything registered: for adapters, for parameters.
    pub(crate) fn split<'b, T>(&self, all: &'b [T]) -> [&'b [T]; 2] {
        let (adapters, params) = all.split_at(self.counters[0].len());
        [adapters, params]
    }

    /// Brings what is on the device up to date for a step.
    ///
    /// # Errors
    /// Where memory is short, where state is not ours, and where anything would have to change
    /// while a graph is captured.
    pub(crate) fn prepare(
        &mut self,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
        capturing: bool,
    ) -> Result<(), Error> {
        let changed = self.place(slots, capturing)?;
        let of_pairs = in_order(io.adapters.iter().map(|pair| pair.id.index()));
        let of_params = in_order(io.params.iter().map(|param| param.id.index()));
        let described = self.describe(slots, io, [&of_pairs, &of_params], capturing)?;
        if changed || self.is_incomplete() || !self.described.is(&described) {
            refuse_capture(capturing)?;
            self.upload(control.stream, described)?;
        }
        self.grad_scale = control.grad_scale;
        self.ids = [of_pairs, of_params].map(|all| all.into_iter().map(|(id, _)| id).collect());
        self.upload_counters(control.stream, slots, capturing)
    }

    /// Room for counters and reports, whose addresses the description holds.
    fn place(&mut self, slots: &Slots<'_>, capturing: bool) -> Result<bool, Error> {
        if self.has_run() && !self.is_outgrown_by(slots) {
            return Ok(false);
        }
        refuse_capture(capturing)?;
        let counts = counts(slots);
        let count = counts[0] + counts[1];
        let board = size_of::<Status>() + count * size_of::<Report>();
        (self.blocks.counters, self.blocks.board) = (None, None);
        if self.blocks.head.is_none() {
            let head = Arc::new(Block::zeros(&self.device, HEAD)?);
            self.dial.point_to(&head);
            self.blocks.head = Some(head);
        }
        let counters = (count * size_of::<u64>()).max(1);
        reserve(&self.device, &mut self.blocks.counters, counters)?;
        reserve(&self.device, &mut self.blocks.board, board)?;
        self.counters = counts.map(|count| vec![UNKNOWN; count]);
        Ok(true)
    }

    /// Describes the set, in scratch memory that is large enough.
    fn describe(
        &mut self,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        [of_pairs, of_params]: [&[(usize, usize)]; 2],
        capturing: bool,
    ) -> Result<Described, Error> {
        loop {
            let mut arena = Arena::new(at(&self.blocks.scratch));
            let mut described = Described::default();
            for (id, k) in of_pairs {
                let board = self.whereabouts(*id);
                let pair =
                    describe::pair(&slots.adapters[*id], &io.adapters[*k], board, &mut arena)?;
                described.adapters.push(pair);
            }
            for (id, k) in of_params {
                let board = self.whereabouts(slots.adapters.len() + id);
                let slot = &slots.params[*id];
                let param = describe::param(slot, &io.params[*k], board, &mut arena)?;
                described.params.push(param);
            }
            let short = self
                .blocks
                .scratch
                .as_ref()
                .is_none_or(|x| x.bytes() < arena.used());
            if !short {
                return Ok(described);
            }
            refuse_capture(capturing)?;
            reserve(&self.device, &mut self.blocks.scratch, arena.used().max(1))?;
        }
    }

    fn whereabouts(&self, place: usize) -> Board {
        let reports = at(&self.blocks.board) + size_of::<Status>() as u64;
        Board {
            counter: at(&self.blocks.counters) + (place * size_of::<u64>()) as u64,
            report: reports + (place * size_of::<Report>()) as u64,
        }
    }

    /// Whether something was never uploaded, or had to make room for more than there was memory for.
    fn is_incomplete(&self) -> bool {
        self.blocks.descriptors.is_none() || self.blocks.tasks.is_none()
    }

    /// Uploads a description, and with it everything that follows from it.
    fn upload(&mut self, stream: u64, described: Described) -> Result<(), Error> {
        let (bytes, of_pairs) = described.bytes();
        reserve(
            &self.device,
            &mut self.blocks.descriptors,
            bytes.len().max(1),
        )?;
        if self.blocks.tasks.is_none() || !described.has_moved_from(&self.described) {
            self.plan(stream, &described)?;
        }
        let descriptors = at(&self.blocks.descriptors);
        let model = Model {
            adapters: descriptors,
            params: descriptors + of_pairs as u64,
            control: head(&self.blocks) + CONTROL as u64,
            status: at(&self.blocks.board),
            pair_count: described.adapters.len() as i32,
            param_count: described.params.len() as i32,
        };
        if let Some(block) = &self.blocks.descriptors {
            block.write(stream, &bytes)?;
        }
        if let Some(block) = &self.blocks.head {
            block.write(stream, bytes_of(&model))?;
        }
        self.described = described;
        Ok(())
    }

    /// Plans the launches of another set.
    fn plan(&mut self, stream: u64, described: &Described) -> Result<(), Error> {
        let new = passes(&described.adapters, &described.params);
        if new != self.passes || !described.lies_as(&self.described) {
            // Scratch memory is laid out anew, and kernels count on zeros beyond the last column.
            if let Some(scratch) = &self.blocks.scratch {
                // SAFETY: the block has as many bytes, and is ours.
                unsafe { self.device.fill(stream, scratch.at(), 0, scratch.bytes())? };
            }
        }
        if new != self.passes || self.blocks.tasks.is_none() {
            self.passes = new;
            self.upload_tasks(stream, &[])?;
        }
        Ok(())
    }

    /// Uploads the tasks of all passes, and of some more behind them.
    fn upload_tasks(&mut self, stream: u64, more: &[Pass]) -> Result<(), Error> {
        let all = self.passes.iter().chain(more);
        let tasks: Vec<Task> = all.flat_map(|pass| pass.tasks.iter().copied()).collect();
        let bytes: &[u8] = cast_slice(&tasks);
        reserve(&self.device, &mut self.blocks.tasks, bytes.len().max(1))?;
        match &self.blocks.tasks {
            Some(block) => block.write(stream, bytes),
            None => Ok(()),
        }
    }

    /// Uploads counters that somebody has changed: all of them at first, later those of what was
    /// loaded from a checkpoint.
    fn upload_counters(
        &mut self,
        stream: u64,
        slots: &Slots<'_>,
        capturing: bool,
    ) -> Result<(), Error> {
        let base = at(&self.blocks.counters);
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
            let place = kind * slots.adapters.len() + id;
            // SAFETY: the counters have room for every adapter and parameter.
            unsafe {
                self.device
                    .write(stream, base + 8 * place as u64, bytes_of(&step))?;
            }
            self.counters[kind][id] = step;
        }
        Ok(())
    }

    /// Launches a step.
    pub(crate) fn run(&self, control: &Control, capturing: bool) -> Result<(), Error> {
        self.begin(control, !capturing, false)?;
        self.launch(control.stream, &self.passes, 0)
    }

    /// Starts a step: sets the control, or leaves it as it is.
    fn begin(&self, control: &Control, set: bool, insist: bool) -> Result<(), Error> {
        let argument = Launch {
            model: head(&self.blocks),
            tasks: 0,
            numbers: [
                control.lr_factor,
                control.grad_scale,
                control.max_grad_norm.unwrap_or(0.0),
                0.0,
            ],
            words: [u64::from(set), u64::from(insist)],
        };
        // SAFETY: the model was uploaded, and needs no tasks.
        unsafe { self.device.launch(control.stream, "begin", 1, 0, &argument) }
    }

    /// Launches passes, whose tasks stand after the first `skip` ones.
    fn launch(&self, stream: u64, passes: &[Pass], skip: usize) -> Result<(), Error> {
        let mut first = skip;
        for pass in passes {
            let argument = Launch {
                model: head(&self.blocks),
                tasks: at(&self.blocks.tasks) + (first * size_of::<Task>()) as u64,
                numbers: [0.0; 4],
                words: pass.words,
            };
            let (grid, shared) = (pass.tasks.len() as u32, pass.shared as u32);
            // SAFETY: the description and the tasks were uploaded; they hold addresses of memory of
            // ours that lives as long as this session or the slots, and of tensors that the caller
            // lends for the step.
            unsafe {
                self.device
                    .launch(stream, pass.kernel, grid, shared, &argument)?;
            }
            first += pass.tasks.len();
        }
        Ok(())
    }

    /// Status and reports, after all work on the stream.
    pub(crate) fn board(&self, stream: u64) -> Result<Vec<u8>, Error> {
        let count = self.counters[0].len() + self.counters[1].len();
        let mut bytes = vec![0; size_of::<Status>() + count * size_of::<Report>()];
        // SAFETY: the board has room for the reports of everything registered.
        unsafe {
            self.device
                .read(stream, at(&self.blocks.board), &mut bytes)?
        };
        Ok(bytes)
    }

    /// Clears what was refused, once somebody knows.
    pub(crate) fn forget_refusals(&self, stream: u64) -> Result<(), Error> {
        let mut board = self.board(stream)?;
        let (status, reports) = board.split_at_mut(size_of::<Status>());
        let status: &mut Status = bytemuck::from_bytes_mut(status);
        (status.refused, status.lost, status.lost_steps) = (0, 0, 0);
        for report in bytemuck::cast_slice_mut::<u8, Report>(reports) {
            report.refused = 0;
        }
        match &self.blocks.board {
            Some(block) => block.write(stream, &board),
            None => Ok(()),
        }
    }

    /// Notes the counters that the host has just seen.
    pub(crate) fn note_counters(&mut self, slots: &Slots<'_>) {
        for id in &self.ids[0] {
            self.counters[0][*id] = slots.adapters[*id].state.step;
        }
        for id in &self.ids[1] {
            self.counters[1][*id] = slots.params[*id].state.step;
        }
    }

    /// Reads the counters of everything that was ever stepped.
    pub(crate) fn bring_counters_home(
        &mut self,
        stream: u64,
        slots: &mut Slots<'_>,
    ) -> Result<(), Error> {
        let Some(block) = &self.blocks.counters else {
            return Ok(());
        };
        let bytes = block.read(stream)?;
        let steps: &[u64] = cast_slice(&bytes);
        let count = self.counters[0].len() + self.counters[1].len();
        let (of_pairs, of_params) = steps[..count].split_at(self.counters[0].len());
        let adapters = slots.adapters.iter_mut().map(|slot| &mut slot.state);
        let params = slots.params.iter_mut().map(|slot| &mut slot.state);
        let [known_pairs, known_params] = &mut self.counters;
        let all = adapters.zip(known_pairs).zip(of_pairs);
        let all = all.chain(params.zip(known_params).zip(of_params));
        // One that was never uploaded is not the device's to tell.
        for ((state, known), step) in all.filter(|((_, known), _)| **known != UNKNOWN) {
            (state.step, *known) = (*step, *step);
        }
        Ok(())
    }
}

fn refuse_capture(capturing: bool) -> Result<(), Error> {
    if !capturing {
        return Ok(());
    }
    let reason = "the set of adapters or where their tensors are has changed, which a captured graph \
                  cannot follow: make one step of the same tensors before the capture";
    Err(Error::backend(NAME, reason))
}
