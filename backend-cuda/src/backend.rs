//! Core's contract: one call steps a whole model.

use std::sync::Arc;

use bytemuck::{cast_slice, from_bytes};
use lora_pro_core::backend::{
    Buffer, Control, Slots, StateTensor, StepIo, foreign_buffer, ratio_or_zero,
};
use lora_pro_core::{Backend, DType, Error, Location, Manifest, OnNonFinite, Rounding, StepReport};

use crate::NAME;
use crate::device::Device;
use crate::dial::Dial;
use crate::driver::Driver;
use crate::memory::Memory;
use crate::model::{DOUBTFUL, NOT_FINITE, Report, Status};
use crate::refusal::first_refusal;
use crate::session::Session;

/// How a backend is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Never wait within a step: counters, reports and refusals come home in
    /// [`Backend::sync`]. A step of which something is not finite changes nothing all the same.
    pub deferred: bool,
}

/// LoRA-Pro on a GPU. Tensors are device memory, on the stream of the step; see
/// [`crate::HostTensors`] for tensors on the host.
pub struct CudaBackend {
    device: Arc<dyn Device>,
    options: Options,
    session: Session,
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

    /// On any device: for the test device.
    pub fn on(device: Arc<dyn Device>, options: Options) -> Self {
        CudaBackend {
            session: Session::new(device.clone()),
            device,
            options,
            stream: 0,
            on_non_finite: OnNonFinite::Error,
        }
    }

    /// What sets the factors of the learning rate and of gradients between replays of a captured
    /// step.
    pub fn dial(&self) -> Dial {
        self.session.dial().clone()
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// What a device that was asked says of the last step.
    fn conclude(
        &mut self,
        slots: &mut Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        let mut board = self.session.board(control.stream)?;
        let mut refused = status(&board).refused;
        if refused == DOUBTFUL {
            self.session.insist(slots, io, control)?;
            board = self.session.board(control.stream)?;
            refused = status(&board).refused & NOT_FINITE;
        }
        if refused != 0 {
            return self.refuse(slots, io, control, &board);
        }
        let ids = self.session.ids().clone();
        self.bring_home(slots, &ids, &board);
        let Status {
            grad_norm,
            grad_clip,
            ..
        } = *status(&board);
        Ok(StepReport::new(control.lr_factor, grad_norm, grad_clip))
    }

    /// Something that came in is not finite: an error, or a step that changed nothing and says so.
    fn refuse(
        &self,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
        board: &[u8],
    ) -> Result<StepReport, Error> {
        self.session.forget_refusals(control.stream)?;
        let subject = self.at_fault(slots, board);
        let refusal = first_refusal(self.device.as_ref(), control.stream, slots, io, &subject)?;
        refusal.into_outcome(control)
    }

    /// What the first report of a refusal is about.
    fn at_fault(&self, slots: &Slots<'_>, board: &[u8]) -> String {
        let [adapters, params] = self.session.split(reports(board));
        let refused = |report: &Report| report.refused != 0;
        let pair = adapters.iter().position(refused);
        let pair = pair.map(|id| slots.adapters[id].spec.subject());
        let param = || params.iter().position(refused);
        let param = || param().map(|id| slots.params[id].spec.subject());
        pair.or_else(param).unwrap_or("the model".into())
    }

    /// Counters and reports of these adapters and parameters.
    fn bring_home(&mut self, slots: &mut Slots<'_>, ids: &[Vec<usize>; 2], board: &[u8]) {
        let grad_scale = self.session.grad_scale();
        let [of_pairs, of_params] = self.session.split(reports(board));
        for id in &ids[0] {
            let (slot, report) = (&mut slots.adapters[*id], &of_pairs[*id]);
            slot.state.step = report.step;
            let relative =
                |k: usize| ratio_or_zero(report.update_norm[k], report.factor_square[k].sqrt());
            let out = &mut slot.report;
            out.step = report.step;
            out.grad_norm = report.gradient_square.map(|x| x.sqrt() * grad_scale).into();
            out.update_norm = report.update_norm.into();
            out.relative_update = [relative(0), relative(1)].into();
            out.equivalent_norm = report.equivalent_norm;
            out.clip = report.clip;
        }
        for id in &ids[1] {
            slots.params[*id].state.step = of_params[*id].step;
        }
        self.session.note_counters(slots);
    }
}

/// The status at the head of what was read.
fn status(board: &[u8]) -> &Status {
    from_bytes(&board[..size_of::<Status>()])
}

/// The reports behind it: of adapters, then of parameters.
fn reports(board: &[u8]) -> &[Report] {
    cast_slice(&board[size_of::<Status>()..])
}

impl Backend for CudaBackend {
    fn manifest(&self) -> Manifest {
        let about = self.device.about();
        Manifest::new(NAME, env!("CARGO_PKG_VERSION"))
            .device(about.name)
            .location(Location::Cuda(about.ordinal))
            .state_dtypes([DType::F64, DType::F32, DType::Bf16, DType::U8])
            .roundings([
                Rounding::Nearest,
                Rounding::Stochastic,
                Rounding::MasterCopy,
            ])
            .code_path(about.code)
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        Ok(Buffer::new(Memory::zeros(&self.device, tensor)?))
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        let memory = buffer.get::<Memory>();
        memory
            .ok_or_else(|| foreign_buffer(NAME, tensor.kind))?
            .download(self.stream, tensor)
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let memory = buffer.get_mut::<Memory>();
        memory
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
        if self.session.is_outgrown_by(&slots) && !capturing {
            // What only the device knows goes with the memory that it stands in.
            self.sync(Slots {
                adapters: slots.adapters,
                params: slots.params,
            })?;
        }
        self.stream = control.stream;
        self.on_non_finite = control.on_non_finite;
        self.session.prepare(&slots, &io, control, capturing)?;
        self.session.run(control, capturing)?;
        if capturing || self.options.deferred {
            return Ok(StepReport::new(control.lr_factor, f64::NAN, f64::NAN));
        }
        self.conclude(&mut slots, &io, control)
    }

    fn sync(&mut self, mut slots: Slots<'_>) -> Result<(), Error> {
        self.device.synchronize(self.stream)?;
        if !self.session.has_run() {
            return Ok(());
        }
        let board = self.session.board(self.stream)?;
        let known = self.session.known();
        self.bring_home(&mut slots, &known, &board);
        self.session.bring_counters_home(self.stream, &mut slots)?;
        let Status {
            refused,
            lost,
            lost_steps,
            ..
        } = *status(&board);
        let (bits, steps) = (refused | lost, lost_steps + u32::from(refused != 0));
        if bits == 0 {
            return Ok(());
        }
        self.session.forget_refusals(self.stream)?;
        if bits == NOT_FINITE && self.on_non_finite == OnNonFinite::Skip {
            return Ok(());
        }
        let subject = self.at_fault(&slots, &board);
        let why = if bits & NOT_FINITE != 0 {
            "a gradient or a parameter that is not finite"
        } else {
            "numbers that might overflow, which only a backend that is not deferred can try"
        };
        let reason =
            format!("{subject}: {why}; {steps} step(s) since the last sync changed nothing");
        Err(Error::backend(NAME, reason))
    }
}
