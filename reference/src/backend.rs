//! The reference as a backend like any other: compute everything, then write everything.

use lora_pro_core::backend::{
    AdapterSlot, Buffer, Control, Factor, ParamSlot, Rejection, Slots, StateKind, StateTensor,
    StepIo, foreign_buffer,
};
use lora_pro_core::{
    AdapterIo, Backend, DType, Error, HostTensor, Manifest, ParamIo, Rounding, StepReport,
};
use nalgebra::DMatrix;

use crate::adamw::{Moments, adam};
use crate::clip::gradient_clip;
use crate::factors::{Factors, Pair};
use crate::full::Square;
use crate::step::{Setting, Stepped, step};
use crate::storage::{
    finite, load_memory, load_moments, memory_tensors, missing, moment_tensors, save_master,
    save_tensors, storable, store, through_master, with_master,
};

/// The backend's name.
pub const NAME: &str = "reference";

/// Steps in f64 with the readable functions of this crate, whatever the storage type. Slow.
#[derive(Clone, Debug, Default)]
pub struct ReferenceBackend {
    square: Square,
}

impl ReferenceBackend {
    /// The exact one.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the public code's quirk in the full mode's second moment, to replay its trajectories.
    pub fn with_bf16_square() -> Self {
        ReferenceBackend {
            square: Square::Bf16FromSecondStep,
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
        if let Some(new) = HostTensor::from_bytes(tensor.dtype, tensor.shape, bytes.to_vec()) {
            *host = new;
        }
        Ok(())
    }

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        let gradients = match read_gradients(&slots, &io, control.grad_scale) {
            Ok(gradients) => gradients,
            Err(error) => {
                let of_gradient = true;
                return Rejection { error, of_gradient }.into_outcome(control);
            }
        };
        let grad_clip = gradient_clip(control.max_grad_norm, gradients.norm);
        let mut adapters = Vec::new();
        for (pair, gradient) in io.adapters.iter().zip(&gradients.adapters) {
            let slot = &slots.adapters[pair.id.index()];
            adapters.push(self.pair_step(slot, pair, gradient, grad_clip, control)?);
        }
        let mut params = Vec::new();
        for (param, gradient) in io.params.iter().zip(&gradients.params) {
            let slot = &slots.params[param.id.index()];
            params.push(param_step(slot, param, &(gradient * grad_clip), control)?);
        }
        for (pair, new) in io.adapters.iter_mut().zip(adapters) {
            commit_pair(&mut slots.adapters[pair.id.index()], pair, new)?;
        }
        for (param, new) in io.params.iter_mut().zip(params) {
            commit_param(&mut slots.params[param.id.index()], param, &new)?;
        }
        Ok(StepReport::new(
            control.lr_factor,
            gradients.norm,
            grad_clip,
        ))
    }
}

impl ReferenceBackend {
    /// Everything that a step of one adapter leads to; nothing is written yet.
    fn pair_step(
        &self,
        slot: &AdapterSlot,
        io: &AdapterIo<'_>,
        gradient: &Pair,
        grad_clip: f64,
        control: &Control,
    ) -> Result<Stepped, Error> {
        let subject = slot.spec.subject();
        let factors = Factors {
            b: with_master(
                finite(&io.b.view(), &subject, "B")?,
                &slot.state,
                StateKind::Master(Factor::B),
                slot.spec.dtype,
            )?,
            a: with_master(
                finite(&io.a.view(), &subject, "A")?,
                &slot.state,
                StateKind::Master(Factor::A),
                slot.spec.dtype,
            )?,
            s: slot.spec.s(),
        };
        let setting = Setting {
            hyper: &slot.hyper,
            lr: slot.hyper.lr * control.lr_factor,
            t: slot.state.step + 1,
            square: self.square,
        };
        let memory = load_memory(&slot.state)?;
        let mut new = step(setting, &factors, &gradient.scaled(grad_clip), &memory)
            .map_err(|error| name(error, &subject))?;
        new.report.grad_norm = [gradient.a.norm(), gradient.b.norm()].into();
        new.factors.a = through_master(new.factors.a, &slot.state, StateKind::Master(Factor::A));
        new.factors.b = through_master(new.factors.b, &slot.state, StateKind::Master(Factor::B));
        storable(
            &new.factors.a,
            slot.spec.dtype,
            &subject,
            "A after the step",
        )?;
        storable(
            &new.factors.b,
            slot.spec.dtype,
            &subject,
            "B after the step",
        )?;
        for (tensor, values) in memory_tensors(&new.memory) {
            let (known, _) = slot.state.find(tensor).ok_or_else(|| missing(tensor))?;
            storable(&values, known.dtype, &subject, tensor.name())?;
        }
        Ok(new)
    }
}

/// All gradients, scaled, and their global norm.
struct Gradients {
    adapters: Vec<Pair>,
    params: Vec<DMatrix<f64>>,
    norm: f64,
}

fn read_gradients(slots: &Slots<'_>, io: &StepIo<'_, '_>, scale: f64) -> Result<Gradients, Error> {
    let mut gradients = Gradients {
        adapters: Vec::new(),
        params: Vec::new(),
        norm: 0.0,
    };
    let mut squares = 0.0;
    for pair in io.adapters.iter() {
        let subject = slots.adapters[pair.id.index()].spec.subject();
        let a = finite(&pair.grad_a, &subject, "grad A")? * scale;
        let b = finite(&pair.grad_b, &subject, "grad B")? * scale;
        squares += a.norm_squared() + b.norm_squared();
        gradients.adapters.push(Pair { a, b });
    }
    for param in io.params.iter() {
        let subject = slots.params[param.id.index()].spec.subject();
        let gradient = finite(&param.grad, &subject, "grad")? * scale;
        squares += gradient.norm_squared();
        gradients.params.push(gradient);
    }
    gradients.norm = squares.sqrt();
    Ok(gradients)
}

/// The parameter and the moments after a step of AdamW.
struct ParamStepped {
    value: DMatrix<f64>,
    moments: Moments,
}

fn param_step(
    slot: &ParamSlot,
    io: &ParamIo<'_>,
    gradient: &DMatrix<f64>,
    control: &Control,
) -> Result<ParamStepped, Error> {
    let subject = slot.spec.subject();
    let value = finite(&io.value.view(), &subject, "value")?;
    let value = with_master(value, &slot.state, StateKind::ParamMaster, slot.spec.dtype)?;
    let old = load_moments(&slot.state, StateKind::Param)?;
    let sign = if slot.hyper.maximize { -1.0 } else { 1.0 };
    let t = slot.state.step + 1;
    let lr = slot.hyper.lr * control.lr_factor;
    let (moments, n) = adam(&slot.hyper, &old, &(gradient * sign), t);
    let value = value * (1.0 - lr * slot.hyper.weight_decay) - n * lr;
    let value = through_master(value, &slot.state, StateKind::ParamMaster);
    storable(&value, slot.spec.dtype, &subject, "value after the step")?;
    Ok(ParamStepped { value, moments })
}

fn commit_pair(slot: &mut AdapterSlot, io: &mut AdapterIo<'_>, new: Stepped) -> Result<(), Error> {
    save_tensors(&mut slot.state, &memory_tensors(&new.memory))?;
    save_master(
        &mut slot.state,
        StateKind::Master(Factor::A),
        &new.factors.a,
    )?;
    save_master(
        &mut slot.state,
        StateKind::Master(Factor::B),
        &new.factors.b,
    )?;
    store(&new.factors.a, &mut io.a);
    store(&new.factors.b, &mut io.b);
    if let Some(base) = io.w0.as_mut().filter(|_| slot.hyper.decay_base) {
        let decayed = crate::storage::matrix(&base.view()) * new.base_decay;
        store(&decayed, base);
    }
    slot.state.step += 1;
    slot.report = new.report;
    slot.report.step = slot.state.step;
    Ok(())
}

fn commit_param(
    slot: &mut ParamSlot,
    io: &mut ParamIo<'_>,
    new: &ParamStepped,
) -> Result<(), Error> {
    save_tensors(
        &mut slot.state,
        &moment_tensors(&new.moments, StateKind::Param),
    )?;
    save_master(&mut slot.state, StateKind::ParamMaster, &new.value)?;
    store(&new.value, &mut io.value);
    slot.state.step += 1;
    Ok(())
}

/// Puts the adapter's name before an error of its matrices.
fn name(error: Error, adapter: &str) -> Error {
    match error {
        Error::Invalid {
            subject,
            field,
            value,
            expected,
        } => Error::Invalid {
            subject: format!("{adapter}: {subject}"),
            field,
            value,
            expected,
        },
        Error::NotConverged { .. } => Error::backend(NAME, format!("{adapter}: {error}")),
        other => other,
    }
}
