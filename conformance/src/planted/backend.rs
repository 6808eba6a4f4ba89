//! The reference behind core's contract once more, as in the reference's `backend`, each equation
//! looked up in the table.

use lora_pro_core::backend::{
    AdapterSlot, Buffer, Control, Factor, ParamSlot, Rejection, Slots, State, StateKind,
    StateTensor, StepIo, foreign_buffer,
};
use lora_pro_core::{AdapterIo, Backend, DType, Error, HostTensor, Manifest, ParamIo, StepReport};
use lora_pro_reference::ReferenceBackend;
use lora_pro_reference::clip::gradient_clip;
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::moments::{load_moments, moment_tensors, state_tensors};
use lora_pro_reference::state::Moments;
use lora_pro_reference::storage::{matrix, read_through_master, round_to_master, store};

use super::adapter::{Setting, Stepped};
use super::equations::{Equations, Matrix};

/// The reference with what has been planted in it.
pub struct PlantedBackend {
    name: &'static str,
    equations: Equations,
    reference: ReferenceBackend,
}

impl PlantedBackend {
    /// The reference with its equations changed.
    pub fn new(name: &'static str, plant: fn(&mut Equations)) -> Self {
        let mut equations = Equations::EXACT;
        plant(&mut equations);
        PlantedBackend {
            name,
            equations,
            reference: ReferenceBackend::new(),
        }
    }
}

impl Backend for PlantedBackend {
    fn manifest(&self) -> Manifest {
        self.reference.manifest().name(self.name)
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        self.reference.allocate(tensor)
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        let bytes = self.reference.download(tensor, buffer)?;
        Ok((self.equations.downloaded)(tensor, bytes))
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let bytes = (self.equations.uploaded)(tensor, bytes.to_vec());
        self.reference.upload(tensor, buffer, &bytes)
    }

    fn step(
        &mut self,
        mut slots: Slots<'_>,
        mut io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        let e = &self.equations;
        let control = (e.control)(control);
        (e.before_checks)(&mut io);
        let gradients = match e.read_gradients(&slots, &io, control.grad_scale) {
            Ok(gradients) => gradients,
            Err(error) => return e.refuse(error, &mut slots, &control),
        };
        let grad_clip = gradient_clip(control.max_grad_norm, gradients.norm);
        let mut adapters = Vec::new();
        for (k, pair) in io.adapters.iter().enumerate() {
            let gradient = (e.gradients_of)(&gradients.adapters, k);
            adapters.push(e.pair_step(slots.adapters, pair, &gradient, grad_clip, &control)?);
        }
        let mut params = Vec::new();
        for (param, gradient) in io.params.iter().zip(&gradients.params) {
            let slot = &slots.params[param.id.index()];
            params.push(e.param_step(slot, param, &(gradient * grad_clip), &control)?);
        }
        for (pair, new) in io.adapters.iter_mut().zip(adapters) {
            e.commit_pair(&mut slots.adapters[pair.id.index()], pair, new)?;
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

/// All gradients, scaled, and their global norm.
struct Gradients {
    adapters: Vec<FactorPair>,
    params: Vec<Matrix>,
    norm: f64,
}

/// A parameter without a pair and its moments after a step.
struct ParamStepped {
    value: Matrix,
    moments: Moments,
}

impl Equations {
    fn read_gradients(
        &self,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        scale: f64,
    ) -> Result<Gradients, Error> {
        let mut adapters = Vec::new();
        for pair in io.adapters.iter() {
            let spec = &slots.adapters[pair.id.index()].spec;
            let (a, b) = (matrix(&pair.grad_a), matrix(&pair.grad_b));
            (self.finite)(&a, spec.dtype, &spec.subject(), "grad A")?;
            (self.finite)(&b, spec.dtype, &spec.subject(), "grad B")?;
            adapters.push((self.raw)(&FactorPair { a, b }, scale));
        }
        let mut params = Vec::new();
        for param in io.params.iter() {
            let spec = &slots.params[param.id.index()].spec;
            let gradient = matrix(&param.grad);
            (self.finite)(&gradient, spec.dtype, &spec.subject(), "grad")?;
            params.push(gradient * scale);
        }
        let of_pair = |pair: &FactorPair| pair.a.norm_squared() + pair.b.norm_squared();
        let of_pairs: Vec<f64> = adapters.iter().map(of_pair).collect();
        let of_params: Vec<f64> = params.iter().map(Matrix::norm_squared).collect();
        Ok(Gradients {
            norm: (self.global_norm)(&of_pairs, &of_params),
            adapters,
            params,
        })
    }

    /// A gradient that is not finite: an error, or a step that changed nothing and says so.
    fn refuse(
        &self,
        error: Error,
        slots: &mut Slots<'_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        let report = Rejection::of_gradient(error).into_outcome(control)?;
        (self.skipped)(slots);
        Ok(report)
    }

    fn pair_step(
        &self,
        slots: &[AdapterSlot],
        io: &AdapterIo<'_>,
        gradient: &FactorPair,
        grad_clip: f64,
        control: &Control,
    ) -> Result<Stepped, Error> {
        let id = io.id.index();
        let AdapterSlot { spec, state, .. } = &slots[id];
        let subject = spec.subject();
        let (a, b) = (matrix(&io.a.view()), matrix(&io.b.view()));
        (self.finite)(&b, spec.dtype, &subject, "B")?;
        (self.finite)(&a, spec.dtype, &subject, "A")?;
        let factors = Factors {
            b: read_through_master(b, state, StateKind::Master(Factor::B), spec.dtype)?,
            a: read_through_master(a, state, StateKind::Master(Factor::A), spec.dtype)?,
            s: (self.scale)(slots, id),
        };
        let hyper = (self.hyper)(slots, id);
        let setting = Setting {
            hyper: &hyper,
            lr: hyper.lr * control.lr_factor,
            t: (self.counter)(slots, id),
            clip: (self.gradient_clip)(grad_clip),
        };
        let memory = (self.memory)(slots, id)?;
        let mut new = self
            .step(&setting, &factors, gradient, &memory)
            .map_err(|error| name(error, &subject))?;
        new.factors.a = round_to_master(new.factors.a, state, StateKind::Master(Factor::A));
        new.factors.b = round_to_master(new.factors.b, state, StateKind::Master(Factor::B));
        let (a, b) = (&new.factors.a, &new.factors.b);
        (self.finite)(a, spec.dtype, &subject, "A after the step")?;
        (self.finite)(b, spec.dtype, &subject, "B after the step")?;
        for (tensor, values) in state_tensors(&new.memory) {
            let dtype = state
                .find(tensor)
                .map_or(DType::F64, |(known, _)| known.dtype);
            (self.finite)(&values, dtype, &subject, tensor.name())?;
        }
        Ok(new)
    }

    fn param_step(
        &self,
        slot: &ParamSlot,
        io: &ParamIo<'_>,
        gradient: &Matrix,
        control: &Control,
    ) -> Result<ParamStepped, Error> {
        let (subject, dtype) = (slot.spec.subject(), slot.spec.dtype);
        let value = matrix(&io.value.view());
        (self.finite)(&value, dtype, &subject, "value")?;
        let value = read_through_master(value, &slot.state, StateKind::ParamMaster, dtype)?;
        let old = load_moments(&slot.state, StateKind::Param, slot.hyper.amsgrad)?;
        let hyper = (self.param_hyper)(&slot.hyper);
        let sign = if hyper.maximize { -1.0 } else { 1.0 };
        let t = slot.state.step + 1;
        let lr = hyper.lr * control.lr_factor;
        let (moments, n) = (self.param_adam)(&hyper, &old, &(gradient * sign), t);
        let value = value * (1.0 - lr * hyper.weight_decay) - n * lr;
        let value = round_to_master(value, &slot.state, StateKind::ParamMaster);
        (self.finite)(&value, dtype, &subject, "value after the step")?;
        Ok(ParamStepped { value, moments })
    }

    fn commit_pair(
        &self,
        slot: &mut AdapterSlot,
        io: &mut AdapterIo<'_>,
        new: Stepped,
    ) -> Result<(), Error> {
        let remembered = (self.remembered)(state_tensors(&new.memory));
        save_tensors(&mut slot.state, &remembered)?;
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
        let a = (self.written)(&matrix(&io.a.view()), &new.factors.a);
        let b = (self.written)(&matrix(&io.b.view()), &new.factors.b);
        store(&a, &mut io.a);
        store(&b, &mut io.b);
        if let (Some(base), Some(decay)) = (io.w0.as_mut(), new.base) {
            let decayed = matrix(&base.view()) * decay;
            store(&decayed, base);
        }
        slot.state.step = (self.counted)(slot.state.step);
        slot.report = new.report;
        slot.report.step = slot.state.step;
        Ok(())
    }
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

/// Writes tensors into the state's buffers.
fn save_tensors(state: &mut State, tensors: &[(StateKind, Matrix)]) -> Result<(), Error> {
    for (kind, values) in tensors {
        let host = state.buffer_mut(*kind)?.get_mut::<HostTensor>();
        let host = host.ok_or_else(|| foreign_buffer("planted", *kind))?;
        store(values, &mut host.view_mut());
    }
    Ok(())
}

/// Writes a master copy, where there is one.
fn save_master(state: &mut State, kind: StateKind, values: &Matrix) -> Result<(), Error> {
    match state.find(kind) {
        Some(_) => save_tensors(state, &[(kind, values.clone())]),
        None => Ok(()),
    }
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
        Error::NotConverged { .. } => Error::backend("planted", format!("{adapter}: {error}")),
        other => other,
    }
}
