//! The reference as a backend like any other: compute everything, then write everything.

use lora_pro_core::backend::{
    Buffer, Control, Rejection, Slots, StateTensor, StepIo, foreign_buffer,
};
use lora_pro_core::{Backend, DType, Error, HostTensor, Manifest, Rounding, StepReport};

use super::adapter::AdapterStep;
use super::gradients::Gradients;
use super::param::ParamStep;
use crate::NAME;
use crate::clip::gradient_clip;
use crate::quirk::SecondMomentQuirk;

/// Steps in f64 with the readable functions of this crate, whatever the storage type. Slow.
#[derive(Clone, Debug, Default)]
pub struct ReferenceBackend {
    quirk: SecondMomentQuirk,
}

impl ReferenceBackend {
    /// The exact one.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the public code's quirk in the full mode's second moment, to replay its trajectories.
    pub fn with_bf16_square() -> Self {
        ReferenceBackend {
            quirk: SecondMomentQuirk::Bf16FromSecondStep,
        }
    }
}

impl Backend for ReferenceBackend {
    fn manifest(&self) -> Manifest {
        Manifest::new(NAME, env!("CARGO_PKG_VERSION"))
            .state_dtypes([DType::F64, DType::F32, DType::Bf16])
            .roundings([Rounding::Nearest, Rounding::MasterCopy])
            .code_path("none of its own")
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        Ok(Buffer::new(HostTensor::zeros(tensor.dtype, tensor.shape)))
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        let host = buffer
            .get::<HostTensor>()
            .ok_or_else(|| foreign_buffer(NAME, tensor.kind))?;
        Ok(host.bytes().to_vec())
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let host = buffer
            .get_mut::<HostTensor>()
            .ok_or_else(|| foreign_buffer(NAME, tensor.kind))?;
        tensor.check_bytes(bytes)?;
        *host = HostTensor::from_bytes(tensor.dtype, tensor.shape, bytes.to_vec())
            .ok_or_else(|| Error::backend(NAME, "bytes that do not fit their tensor"))?;
        Ok(())
    }

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        let gradients = match Gradients::read(&slots, &io, control.grad_scale) {
            Ok(gradients) => gradients,
            Err(error) => return Rejection::of_gradient(error).into_outcome(control),
        };
        let grad_clip = gradient_clip(control.max_grad_norm, gradients.norm);

        let mut adapters = Vec::new();
        for (io, gradient) in io.adapters.iter().zip(&gradients.adapters) {
            let slot = &slots.adapters[io.id.index()];
            let step = AdapterStep::compute(slot, io, gradient, grad_clip, control, self.quirk)?;
            adapters.push(step);
        }
        let mut params = Vec::new();
        for (io, gradient) in io.params.iter().zip(&gradients.params) {
            let slot = &slots.params[io.id.index()];
            params.push(ParamStep::compute(
                slot,
                io,
                &(gradient * grad_clip),
                control,
            )?);
        }

        for (io, step) in io.adapters.iter_mut().zip(adapters) {
            step.commit(&mut slots.adapters[io.id.index()], io);
        }
        for (io, step) in io.params.iter_mut().zip(params) {
            step.commit(&mut slots.params[io.id.index()], io);
        }
        let lr_factor = control.lr_factor;
        Ok(StepReport::new(lr_factor, gradients.norm, grad_clip))
    }
}
