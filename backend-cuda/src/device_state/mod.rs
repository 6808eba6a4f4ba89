//! What is on the device from step to step: descriptors, the tasks of the launches, counters, reports,
//! scratch memory. It changes when the set of adapters does; a step of the same set uploads nothing
//! and allocates nothing.
//!
//! | module | what |
//! |---|---|
//! | `upload` | brings descriptors, plan and counters up to date before a step |
//! | `launch` | the launches of a step |
//! | `status_block` | status and reports, read after a step |
//! | `retry` | a step that might overflow |
//! | `buffers` | the memory |

mod buffers;
mod launch;
mod retry;
mod status_block;
mod upload;

use std::sync::Arc;

use bytemuck::cast_slice;
use lora_pro_core::Error;
use lora_pro_core::backend::Slots;

use buffers::{Buffers, at};

use crate::descriptors::Descriptors;
use crate::device::Device;
use crate::graph_parameters::GraphParameters;
use crate::plan::Pass;

pub(crate) use status_block::StatusBlock;

/// The counter of what was never uploaded.
const UNKNOWN: u64 = u64::MAX;

/// See the module's head.
pub(crate) struct DeviceState {
    device: Arc<dyn Device>,
    buffers: Buffers,
    descriptors: Descriptors,
    /// Numbers of the adapters and parameters of the set.
    ids: [Vec<usize>; 2],
    passes: Vec<Pass>,
    /// Counters as the host last saw them, of all adapters and then of all parameters.
    counters: [Vec<u64>; 2],
    grad_scale: f64,
    graph_parameters: GraphParameters,
}

/// How many adapters and parameters are registered.
fn counts(slots: &Slots<'_>) -> [usize; 2] {
    [slots.adapters.len(), slots.params.len()]
}

impl DeviceState {
    pub(crate) fn new(device: Arc<dyn Device>) -> Self {
        DeviceState {
            graph_parameters: GraphParameters::new(device.clone()),
            device,
            buffers: Buffers::default(),
            descriptors: Descriptors::default(),
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
    pub(crate) fn graph_parameters(&self) -> &GraphParameters {
        &self.graph_parameters
    }

    /// The factor on gradients of the last step.
    pub(crate) fn grad_scale(&self) -> f64 {
        self.grad_scale
    }

    /// Whether there was a step.
    pub(crate) fn has_run(&self) -> bool {
        self.buffers.status.is_some()
    }

    /// Whether more is registered than when counters and reports were laid out.
    pub(crate) fn is_outgrown_by(&self, slots: &Slots<'_>) -> bool {
        counts(slots) != [0, 1].map(|k| self.counters[k].len())
    }

    /// How many counters and reports there are.
    fn registered(&self) -> usize {
        self.counters[0].len() + self.counters[1].len()
    }

    /// Status and reports, after all work on the stream.
    pub(crate) fn status_block(&self, stream: u64) -> Result<StatusBlock, Error> {
        let mut bytes = vec![0; StatusBlock::size(self.registered())];
        // SAFETY: the buffer has room for the reports of everything registered.
        unsafe {
            self.device
                .read(stream, at(&self.buffers.status), &mut bytes)?;
        }
        Ok(StatusBlock::new(bytes, self.counters[0].len()))
    }

    /// Clears what was rejected, once the host has read it.
    pub(crate) fn clear_rejections(&self, stream: u64) -> Result<(), Error> {
        let cleared = self.status_block(stream)?.without_rejections();
        match &self.buffers.status {
            Some(buffer) => buffer.write(stream, cleared.bytes()),
            None => Ok(()),
        }
    }

    /// Records the counters that the host has just read.
    pub(crate) fn record_counters(&mut self, slots: &Slots<'_>) {
        for id in &self.ids[0] {
            self.counters[0][*id] = slots.adapters[*id].state.step;
        }
        for id in &self.ids[1] {
            self.counters[1][*id] = slots.params[*id].state.step;
        }
    }

    /// Reads the counters of everything that was ever stepped.
    pub(crate) fn read_counters(
        &mut self,
        stream: u64,
        slots: &mut Slots<'_>,
    ) -> Result<(), Error> {
        let Some(buffer) = &self.buffers.counters else {
            return Ok(());
        };
        let bytes = buffer.read(stream)?;
        let steps: &[u64] = cast_slice(&bytes);
        let adapters = slots.adapters.iter_mut().map(|slot| &mut slot.state);
        let params = slots.params.iter_mut().map(|slot| &mut slot.state);
        let known = self.counters.iter_mut().flatten();
        for ((state, known), step) in adapters.chain(params).zip(known).zip(steps) {
            // The device knows nothing of one that was never uploaded.
            if *known != UNKNOWN {
                (state.step, *known) = (*step, *step);
            }
        }
        Ok(())
    }
}
