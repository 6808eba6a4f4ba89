//! The launches of a step.

use lora_pro_core::Error;
use lora_pro_core::backend::Control;

use super::DeviceState;
use super::buffers::{at, head};
use crate::device::Launch;
use crate::model::Task;
use crate::plan::Pass;

impl DeviceState {
    /// Launches a step.
    pub(crate) fn run(&self, control: &Control, capturing: bool) -> Result<(), Error> {
        self.begin(control, !capturing, false)?;
        self.launch(control.stream, &self.passes, 0)
    }

    /// Starts a step: sets the control, or leaves it as it is.
    pub(super) fn begin(
        &self,
        control: &Control,
        set: bool,
        allow_overflow: bool,
    ) -> Result<(), Error> {
        let argument = Launch {
            model: head(&self.buffers),
            tasks: 0,
            numbers: [
                control.lr_factor,
                control.grad_scale,
                control.max_grad_norm.unwrap_or(0.0),
                0.0,
            ],
            words: [u64::from(set), u64::from(allow_overflow)],
        };
        // SAFETY: the model was uploaded, and needs no tasks.
        unsafe { self.device.launch(control.stream, "begin", 1, 0, &argument) }
    }

    /// Launches passes, whose tasks stand after the first `skip` ones.
    pub(super) fn launch(&self, stream: u64, passes: &[Pass], skip: usize) -> Result<(), Error> {
        let mut first = skip;
        for pass in passes {
            let argument = Launch {
                model: head(&self.buffers),
                tasks: at(&self.buffers.tasks) + (first * size_of::<Task>()) as u64,
                numbers: [0.0; 4],
                words: pass.words,
            };
            let (grid, shared) = (pass.tasks.len() as u32, pass.shared as u32);
            // SAFETY: descriptors and tasks were uploaded; they hold addresses of memory that lives as
            // long as this state or the slots, and of tensors that the caller lends for the step.
            unsafe {
                self.device
                    .launch(stream, pass.kernel, grid, shared, &argument)?;
            }
            first += pass.tasks.len();
        }
        Ok(())
    }
}
