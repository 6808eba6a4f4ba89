//! What may change between replays of a captured step.

use std::sync::{Arc, OnceLock};

use bytemuck::cast_slice;
use lora_pro_core::Error;

use crate::NAME;
use crate::device::Device;
use crate::device_buffer::DeviceBuffer;
use crate::model::CONTROL;

/// Sets the factors of the steps to come where a graph is replayed, and so no step is called.
///
/// Taken from a backend before the optimizer owns it (`CudaBackend::graph_parameters`). A step that is
/// not captured sets both factors itself.
#[derive(Clone)]
pub struct GraphParameters {
    device: Arc<dyn Device>,
    /// Where the control stands, from the first step on.
    head: Arc<OnceLock<Arc<DeviceBuffer>>>,
}

impl GraphParameters {
    pub(crate) fn new(device: Arc<dyn Device>) -> Self {
        GraphParameters {
            device,
            head: Arc::default(),
        }
    }

    pub(crate) fn point_to(&self, head: &Arc<DeviceBuffer>) {
        self.head.get_or_init(|| head.clone());
    }

    /// Sets the schedule's factor on all learning rates, and the factor on all gradients, for what is
    /// launched on the stream from now on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a factor that is not finite or negative (0 for gradients),
    /// [`Error::Backend`] before the first step and where the device fails.
    pub fn set(&self, stream: u64, lr_factor: f64, grad_scale: f64) -> Result<(), Error> {
        let checks = [
            ("lr_factor", lr_factor, lr_factor >= 0.0),
            ("grad_scale", grad_scale, grad_scale > 0.0),
        ];
        for (field, value, holds) in checks {
            if !(holds && value.is_finite()) {
                let expected = "finite and not negative, above 0 for gradients";
                return Err(Error::invalid("the optimizer", field, value, expected));
            }
        }
        let Some(head) = self.head.get() else {
            let reason = "there was no step yet whose factors could be changed";
            return Err(Error::backend(NAME, reason));
        };
        let (at, factors) = (head.at() + CONTROL as u64, [lr_factor, grad_scale]);
        // SAFETY: the control starts with these two numbers, in a buffer that `self` keeps.
        unsafe { self.device.write(stream, at, cast_slice(&factors)) }
    }
}
