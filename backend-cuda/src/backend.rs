//! Core's contract: one call steps a whole model.

use std::sync::Arc;

use lora_pro_core::backend::{
    Buffer, Control, Slots, StateTensor, StepIo, foreign_buffer, ratio_or_zero,
};
use lora_pro_core::{Backend, DType, Error, Location, Manifest, OnNonFinite, Rounding, StepReport};

use crate::NAME;
use crate::constants::{MAY_OVERFLOW, NOT_FINITE};
use crate::device::Device;
use crate::device_state::{DeviceState, StatusBlock};
use crate::driver::Driver;
use crate::graph_parameters::GraphParameters;
use crate::model::Report;
use crate::rejection::find_rejection;
use crate::state_buffer::StateBuffer;

/// How a backend is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Never wait within a step: counters, reports and rejections are read in [`Backend::sync`]. A step
    /// in which an entry is not finite changes nothing all the same.
    pub deferred: bool,
}

/// LoRA-Pro on a GPU. Tensors are device memory, on the stream of the step; see
/// [`crate::StagedCudaBackend`] for tensors on the host.
pub struct CudaBackend {
    device: Arc<dyn Device>,
    options: Options,
    state: DeviceState,
    /// The stream of the last step.
    stream: u64,
    on_non_finite: OnNonFinite,
}

impl CudaBackend {
    /// On the GPU with this number.
    ///
    /// # Errors
    /// As [`Driver::new`].
    pub fn new(ordinal: usize) -> Result<Self, Error> {
        Self::with(ordinal, Options::default())
    }

    /// With options.
    ///
    /// # Errors
    /// As [`Driver::new`].
    pub fn with(ordinal: usize, options: Options) -> Result<Self, Error> {
        Ok(Self::on(Arc::new(Driver::new(ordinal)?), options))
    }

    /// On any device: for the emulator.
    pub fn on(device: Arc<dyn Device>, options: Options) -> Self {
        CudaBackend {
            state: DeviceState::new(device.clone()),
            device,
            options,
            stream: 0,
            on_non_finite: OnNonFinite::Error,
        }
    }

    /// What sets the factors of the learning rate and of gradients between replays of a captured
    /// step.
    pub fn graph_parameters(&self) -> GraphParameters {
        self.state.graph_parameters().clone()
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Reads what the device says of the step, and answers for it.
    fn finish_step(
        &mut self,
        slots: &mut Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        let mut block = self.state.status_block(control.stream)?;
        let mut rejected = block.status().rejected;
        if rejected == MAY_OVERFLOW {
            self.state.retry_with_rollback(slots, io, control)?;
            block = self.state.status_block(control.stream)?;
            rejected = block.status().rejected & NOT_FINITE;
        }
        if rejected != 0 {
            return self.reject(slots, io, control, &block);
        }
        let ids = self.state.ids().clone();
        self.read_back(slots, &ids, &block);
        let (norm, clip) = (block.status().grad_norm, block.status().grad_clip);
        Ok(StepReport::new(control.lr_factor, norm, clip))
    }

    /// An entry that came in is not finite: an error, or a step that changed nothing and says so.
    fn reject(
        &self,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
        block: &StatusBlock,
    ) -> Result<StepReport, Error> {
        self.state.clear_rejections(control.stream)?;
        let subject = first_offender(slots, block);
        let rejection = find_rejection(self.device.as_ref(), control.stream, slots, io, &subject)?;
        rejection.into_outcome(control)
    }

    /// Writes counters and reports of these adapters and parameters into their slots.
    fn read_back(&mut self, slots: &mut Slots<'_>, ids: &[Vec<usize>; 2], block: &StatusBlock) {
        let grad_scale = self.state.grad_scale();
        for id in &ids[0] {
            let (slot, report) = (&mut slots.adapters[*id], &block.adapters()[*id]);
            let relative =
                |k: usize| ratio_or_zero(report.update_norm[k], report.factor_square[k].sqrt());
            slot.state.step = report.step;
            let out = &mut slot.report;
            out.step = report.step;
            out.grad_norm = report.gradient_square.map(|x| x.sqrt() * grad_scale).into();
            out.update_norm = report.update_norm.into();
            out.relative_update = [relative(0), relative(1)].into();
            out.equivalent_norm = report.equivalent_norm;
            out.clip = report.clip;
        }
        for id in &ids[1] {
            slots.params[*id].state.step = block.params()[*id].step;
        }
        self.state.record_counters(slots);
    }
}

/// What the first report of a rejection is info.
fn first_offender(slots: &Slots<'_>, block: &StatusBlock) -> String {
    let rejected = |report: &Report| report.rejected != 0;
    let adapter = block.adapters().iter().position(rejected);
    let adapter = adapter.map(|id| slots.adapters[id].spec.subject());
    let param = || block.params().iter().position(rejected);
    let param = || param().map(|id| slots.params[id].spec.subject());
    adapter.or_else(param).unwrap_or("the model".into())
}

impl Backend for CudaBackend {
    fn manifest(&self) -> Manifest {
        let info = self.device.info();
        Manifest::new(NAME, env!("CARGO_PKG_VERSION"))
            .device(info.name)
            .location(Location::Cuda(info.ordinal))
            .state_dtypes([DType::F64, DType::F32, DType::Bf16, DType::U8])
            .roundings([
                Rounding::Nearest,
                Rounding::Stochastic,
                Rounding::MasterCopy,
            ])
            .code_path(info.code)
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        Ok(Buffer::new(StateBuffer::zeros(&self.device, tensor)?))
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        let buffer = buffer.get::<StateBuffer>();
        buffer
            .ok_or_else(|| foreign_buffer(NAME, tensor.kind))?
            .download(self.stream, tensor)
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let buffer = buffer.get_mut::<StateBuffer>();
        buffer
            .ok_or_else(|| foreign_buffer(NAME, tensor.kind))?
            .upload(self.stream, tensor, bytes)
    }

    fn step(
        &mut self,
        mut slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        let capturing = self.device.is_capturing(control.stream)?;
        if self.state.is_outgrown_by(&slots) && !capturing {
            // Counters and reports move to new memory: what only the device knows is read before.
            self.sync(Slots {
                adapters: slots.adapters,
                params: slots.params,
            })?;
        }
        self.stream = control.stream;
        self.on_non_finite = control.on_non_finite;
        self.state.prepare(&slots, &io, control, capturing)?;
        self.state.run(control, capturing)?;
        if capturing || self.options.deferred {
            return Ok(StepReport::new(control.lr_factor, f64::NAN, f64::NAN));
        }
        self.finish_step(&mut slots, &io, control)
    }

    fn sync(&mut self, mut slots: Slots<'_>) -> Result<(), Error> {
        self.device.synchronize(self.stream)?;
        if !self.state.has_run() {
            return Ok(());
        }
        let block = self.state.status_block(self.stream)?;
        let known = self.state.known();
        self.read_back(&mut slots, &known, &block);
        self.state.read_counters(self.stream, &mut slots)?;
        let status = block.status();
        let reasons = status.rejected | status.unreported;
        let steps = status.unreported_steps + u32::from(status.rejected != 0);
        if reasons == 0 {
            return Ok(());
        }
        self.state.clear_rejections(self.stream)?;
        if reasons == NOT_FINITE && self.on_non_finite == OnNonFinite::Skip {
            return Ok(());
        }
        let subject = first_offender(&slots, &block);
        let why = if reasons & NOT_FINITE != 0 {
            "a gradient or a parameter that is not finite"
        } else {
            "numbers that might overflow, which only a backend that is not deferred can try"
        };
        let reason =
            format!("{subject}: {why}; {steps} step(s) since the last sync changed nothing");
        Err(Error::backend(NAME, reason))
    }
}
