//! The optimizer front: owns configuration, state and step counters; a backend computes.

use std::collections::HashSet;

use crate::adapter::{AdapterSpec, ParamSpec};
use crate::backend::{
    AdapterSlot, Backend, Control, Manifest, ParamSlot, Slots, State, StateKind, StateTensor,
    StepIo, adapter_layout, param_layout,
};
use crate::check;
use crate::config::Config;
use crate::error::Error;
use crate::hyper::Hyper;
use crate::io::{AdapterId, AdapterIo, ParamId, ParamIo};
use crate::report::{AdapterReport, StepReport};
use crate::scale::Scale;
use crate::tensor::DType;
use crate::tensor_file::TensorData;

/// LoRA-Pro for a whole model.
///
/// Register every adapter (and every unpaired parameter) once, then call [`Optimizer::step`] with
/// their tensors after each backward pass.
pub struct Optimizer {
    backend: Box<dyn Backend>,
    manifest: Manifest,
    config: Config,
    adapters: Vec<AdapterSlot>,
    params: Vec<ParamSlot>,
    names: HashSet<String>,
    steps: u64,
    factors: Factors,
    stream: u64,
    seen: Vec<bool>,
}

/// What the caller multiplies learning rates and gradients by, apart from the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Factors {
    pub lr: f64,
    pub grad: f64,
}

impl Factors {
    pub(crate) fn validate(self) -> Result<(), Error> {
        let invalid = |field, value: f64, expected: &str| {
            Err(Error::invalid("the optimizer", field, value, expected))
        };
        if !(self.lr.is_finite() && self.lr >= 0.0) {
            return invalid("lr_factor", self.lr, "finite and at least 0");
        }
        if !(self.grad.is_finite() && self.grad > 0.0) {
            return invalid("grad_scale", self.grad, "positive and finite");
        }
        Ok(())
    }
}

impl Default for Factors {
    fn default() -> Self {
        Factors { lr: 1.0, grad: 1.0 }
    }
}

impl std::fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Optimizer")
            .field("backend", &self.manifest.name)
            .field("config", &self.config)
            .field("steps", &self.steps)
            .field("adapters", &self.adapters)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl Optimizer {
    /// An optimizer without adapters. Rejects a configuration that is out of range.
    pub fn new(backend: impl Backend + 'static, config: Config) -> Result<Self, Error> {
        config.validate()?;
        Ok(Optimizer {
            manifest: backend.manifest(),
            backend: Box::new(backend),
            config,
            adapters: Vec::new(),
            params: Vec::new(),
            names: HashSet::new(),
            steps: 0,
            factors: Factors::default(),
            stream: 0,
            seen: Vec::new(),
        })
    }

    /// Registers an adapter and allocates its state.
    pub fn add_adapter(&mut self, spec: AdapterSpec) -> Result<AdapterId, Error> {
        let subject = spec.subject();
        spec.validate()?;
        self.check_new(&subject, &spec.name, spec.dtype)?;
        let hyper = self.config.hyper_of(&subject, spec.group.as_deref())?;
        hyper.validate(&subject)?;
        let layout = adapter_layout(&spec, &hyper);
        self.check_state(&subject, &hyper, &layout)?;
        let state = self.allocate(layout)?;
        self.names.insert(spec.name.clone());
        self.adapters.push(AdapterSlot {
            spec,
            hyper,
            state,
            report: AdapterReport::default(),
        });
        Ok(AdapterId::from_index(self.adapters.len() - 1))
    }

    /// Registers a parameter that ordinary AdamW steps, and allocates its state.
    pub fn add_param(&mut self, spec: ParamSpec) -> Result<ParamId, Error> {
        let subject = spec.subject();
        spec.validate()?;
        self.check_new(&subject, &spec.name, spec.dtype)?;
        let hyper = self.config.hyper_of(&subject, spec.group.as_deref())?;
        hyper.validate(&subject)?;
        let layout = param_layout(&spec, &hyper);
        self.check_state(&subject, &hyper, &layout)?;
        let state = self.allocate(layout)?;
        self.names.insert(spec.name.clone());
        self.params.push(ParamSlot { spec, hyper, state });
        Ok(ParamId::from_index(self.params.len() - 1))
    }

    /// Steps the listed adapters. On an error nothing has changed: no parameter, state or counter.
    pub fn step(&mut self, adapters: &mut [AdapterIo<'_>]) -> Result<StepReport, Error> {
        self.step_with_params(adapters, &mut [])
    }

    /// Steps the listed adapters and unpaired parameters. On an error nothing has changed: no
    /// parameter, state or counter.
    pub fn step_with_params<'a>(
        &mut self,
        adapters: &mut [AdapterIo<'a>],
        params: &mut [ParamIo<'a>],
    ) -> Result<StepReport, Error> {
        let io = StepIo { adapters, params };
        check::step_io(
            &self.manifest,
            &self.adapters,
            &self.params,
            &io,
            &mut self.seen,
        )?;
        let control = Control {
            lr_factor: self.config.schedule.factor(self.steps + 1) * self.factors.lr,
            grad_scale: self.factors.grad,
            max_grad_norm: self.config.max_grad_norm,
            on_non_finite: self.config.on_non_finite,
            stream: self.stream,
        };
        let slots = Slots {
            adapters: &mut self.adapters,
            params: &mut self.params,
        };
        let report = self.backend.step(slots, io, &control)?;
        if report.skipped.is_none() {
            self.steps += 1;
        }
        Ok(report)
    }

    /// Waits for the backend and brings counters and reports up to date.
    pub fn sync(&mut self) -> Result<(), Error> {
        let slots = Slots {
            adapters: &mut self.adapters,
            params: &mut self.params,
        };
        self.backend.sync(slots)
    }

    /// Factor on all gradients of the coming steps, 1 / (loss scale * accumulation steps); positive
    /// and finite.
    pub fn set_grad_scale(&mut self, factor: f64) -> Result<(), Error> {
        self.set_factors(Factors {
            grad: factor,
            ..self.factors
        })
    }

    /// Factor on the learning rates of all groups in the coming steps, at least 0: for a scheduler
    /// of the caller's own. It multiplies the configured schedule's factor.
    pub fn set_lr_factor(&mut self, factor: f64) -> Result<(), Error> {
        self.set_factors(Factors {
            lr: factor,
            ..self.factors
        })
    }

    pub(crate) fn set_factors(&mut self, factors: Factors) -> Result<(), Error> {
        factors.validate()?;
        self.factors = factors;
        Ok(())
    }

    /// Learning rate of the coming steps, of what is in no group.
    pub fn set_lr(&mut self, lr: f64) -> Result<(), Error> {
        self.set_hyper(None, self.config.hyper.lr(lr))
    }

    /// Hyper-parameters of the coming steps: a group's, or (`None`) those of what is in no group.
    /// As [`Optimizer::set_config`] of a configuration in which they alone differ.
    pub fn set_hyper(&mut self, group: Option<&str>, hyper: Hyper) -> Result<(), Error> {
        self.config.hyper_of("the optimizer", group)?;
        let mut config = self.config.clone();
        match group {
            None => config.hyper = hyper,
            Some(name) => {
                config.groups.insert(name.into(), hyper);
            }
        }
        self.set_config(config)
    }

    /// The configuration of the coming steps.
    ///
    /// It is validated as at construction. What decides which tensors are remembered (method,
    /// AMSGrad, storage and rounding, whether there is momentum) cannot change. On an error nothing
    /// has changed.
    pub fn set_config(&mut self, config: Config) -> Result<(), Error> {
        config.validate()?;
        let of_adapter = |slot: &AdapterSlot| {
            let subject = slot.spec.subject();
            let hyper = config.hyper_of(&subject, slot.spec.group.as_deref())?;
            let layout = adapter_layout(&slot.spec, &hyper);
            let same = slot.hyper.method == hyper.method && slot.state.has_layout(&layout);
            self.check_change(&subject, &hyper, &layout, same)
        };
        let of_param = |slot: &ParamSlot| {
            let subject = slot.spec.subject();
            let hyper = config.hyper_of(&subject, slot.spec.group.as_deref())?;
            let layout = param_layout(&slot.spec, &hyper);
            let same = slot.state.has_layout(&layout);
            self.check_change(&subject, &hyper, &layout, same)
        };
        let adapters = self.adapters.iter().map(of_adapter);
        let adapters = adapters.collect::<Result<Vec<_>, _>>()?;
        let params = self.params.iter().map(of_param);
        let params = params.collect::<Result<Vec<_>, _>>()?;
        for (slot, hyper) in self.adapters.iter_mut().zip(adapters) {
            slot.hyper = hyper;
        }
        for (slot, hyper) in self.params.iter_mut().zip(params) {
            slot.hyper = hyper;
        }
        self.config = config;
        Ok(())
    }

    /// `hyper`, unless the state that is there is of another kind or the backend cannot step it.
    fn check_change(
        &self,
        subject: &str,
        hyper: &Hyper,
        layout: &[StateTensor],
        same: bool,
    ) -> Result<Hyper, Error> {
        if !same {
            let expected =
                "such that method and state tensors stay: make a new optimizer for another state";
            let (field, value) = ("hyper-parameters", "of another state");
            return Err(Error::invalid(subject, field, value, expected));
        }
        self.check_state(subject, hyper, layout)?;
        Ok(*hyper)
    }

    /// The stream of the coming steps ([`Control::stream`]).
    pub fn set_stream(&mut self, stream: u64) {
        self.stream = stream;
    }

    /// The backend's description.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Steps committed by this optimizer: the schedule's t. Each adapter has its own besides.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The id of the adapter of this name.
    pub fn adapter_id(&self, name: &str) -> Option<AdapterId> {
        let index = self
            .adapters
            .iter()
            .position(|slot| slot.spec.name == name)?;
        Some(AdapterId::from_index(index))
    }

    /// The id of the unpaired parameter of this name.
    pub fn param_id(&self, name: &str) -> Option<ParamId> {
        let index = self.params.iter().position(|slot| slot.spec.name == name)?;
        Some(ParamId::from_index(index))
    }

    /// What the last step did to an adapter. On a device that runs behind, as of the last
    /// [`Optimizer::sync`].
    pub fn report(&self, id: AdapterId) -> Result<&AdapterReport, Error> {
        Ok(&self.adapter(id)?.report)
    }

    /// An adapter's specification, hyper-parameters, state and last report.
    pub fn adapter(&self, id: AdapterId) -> Result<&AdapterSlot, Error> {
        check::lookup(&self.adapters, id.index(), "adapter")
    }

    /// An unpaired parameter's specification, hyper-parameters and state.
    pub fn param(&self, id: ParamId) -> Result<&ParamSlot, Error> {
        check::lookup(&self.params, id.index(), "parameter")
    }

    /// One state tensor of an adapter, row-major: exp_avg and so on ([`StateKind`]).
    ///
    /// Call [`Optimizer::sync`] first where steps may still be running on a device.
    pub fn adapter_state(&self, id: AdapterId, kind: StateKind) -> Result<TensorData, Error> {
        let slot = self.adapter(id)?;
        read_state(
            self.backend.as_ref(),
            &slot.state,
            &slot.spec.subject(),
            kind,
        )
    }

    /// One state tensor of an unpaired parameter, row-major.
    pub fn param_state(&self, id: ParamId, kind: StateKind) -> Result<TensorData, Error> {
        let slot = self.param(id)?;
        read_state(
            self.backend.as_ref(),
            &slot.state,
            &slot.spec.subject(),
            kind,
        )
    }

    /// Replaces one state tensor of an adapter. Shape and dtype must be those of
    /// [`Optimizer::adapter_state`].
    pub fn set_adapter_state(
        &mut self,
        id: AdapterId,
        kind: StateKind,
        data: &TensorData,
    ) -> Result<(), Error> {
        check::lookup(&self.adapters, id.index(), "adapter")?;
        let slot = &mut self.adapters[id.index()];
        let subject = slot.spec.subject();
        write_state(self.backend.as_mut(), &mut slot.state, &subject, kind, data)
    }

    /// Replaces one state tensor of an unpaired parameter.
    pub fn set_param_state(
        &mut self,
        id: ParamId,
        kind: StateKind,
        data: &TensorData,
    ) -> Result<(), Error> {
        check::lookup(&self.params, id.index(), "parameter")?;
        let slot = &mut self.params[id.index()];
        let subject = slot.spec.subject();
        write_state(self.backend.as_mut(), &mut slot.state, &subject, kind, data)
    }

    /// The scale s of an adapter in the coming steps; positive and finite. State stays as it is.
    pub fn set_scale(&mut self, id: AdapterId, scale: Scale) -> Result<(), Error> {
        let spec = &self.adapter(id)?.spec;
        scale.validate(&spec.subject(), spec.r)?;
        self.adapters[id.index()].spec.scale = scale;
        Ok(())
    }

    /// Sets an adapter's step counter t, as when its state is taken from elsewhere.
    pub fn set_adapter_steps(&mut self, id: AdapterId, steps: u64) -> Result<(), Error> {
        check::lookup(&self.adapters, id.index(), "adapter")?;
        self.adapters[id.index()].state.step = steps;
        Ok(())
    }

    /// Sets an unpaired parameter's step counter t.
    pub fn set_param_steps(&mut self, id: ParamId, steps: u64) -> Result<(), Error> {
        check::lookup(&self.params, id.index(), "parameter")?;
        self.params[id.index()].state.step = steps;
        Ok(())
    }

    /// The adapters, in the order of registration, with their last reports.
    pub fn adapters(&self) -> &[AdapterSlot] {
        &self.adapters
    }

    /// The unpaired parameters, in the order of registration.
    pub fn params(&self) -> &[ParamSlot] {
        &self.params
    }

    /// Bytes of all optimizer state.
    pub fn state_bytes(&self) -> usize {
        let adapters = self.adapters.iter().map(|slot| slot.state.bytes());
        let params = self.params.iter().map(|slot| slot.state.bytes());
        adapters.chain(params).sum()
    }

    /// All states with their owner's name: for checkpoints.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&str, &State)> {
        let adapters = self
            .adapters
            .iter()
            .map(|slot| (slot.spec.name.as_str(), &slot.state));
        let params = self
            .params
            .iter()
            .map(|slot| (slot.spec.name.as_str(), &slot.state));
        adapters.chain(params)
    }

    /// As `states`, to write, together with the backend that owns the memory.
    pub(crate) fn states_mut(
        &mut self,
    ) -> (&mut dyn Backend, impl Iterator<Item = (&str, &mut State)>) {
        let adapters = self
            .adapters
            .iter_mut()
            .map(|slot| (slot.spec.name.as_str(), &mut slot.state));
        let params = self
            .params
            .iter_mut()
            .map(|slot| (slot.spec.name.as_str(), &mut slot.state));
        (self.backend.as_mut(), adapters.chain(params))
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.backend.as_ref()
    }

    pub(crate) fn factors(&self) -> Factors {
        self.factors
    }

    pub(crate) fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    fn check_new(&self, subject: &str, name: &str, dtype: DType) -> Result<(), Error> {
        if self.names.contains(name) {
            return Err(Error::Duplicate {
                subject: subject.into(),
                what: "is registered twice",
            });
        }
        if !self.manifest.dtypes.contains(&dtype) {
            return Err(self.unsupported(subject, format!("storage type {dtype}")));
        }
        Ok(())
    }

    fn check_state(
        &self,
        subject: &str,
        hyper: &Hyper,
        layout: &[StateTensor],
    ) -> Result<(), Error> {
        if !self.manifest.roundings.contains(&hyper.rounding) {
            return Err(self.unsupported(subject, format!("rounding {}", hyper.rounding)));
        }
        let unsupported =
            |tensor: &&StateTensor| !self.manifest.state_dtypes.contains(&tensor.dtype);
        match layout.iter().find(unsupported) {
            Some(tensor) => {
                Err(self.unsupported(subject, format!("moments of type {}", tensor.dtype)))
            }
            None => Ok(()),
        }
    }

    fn unsupported(&self, subject: &str, what: String) -> Error {
        let backend = self.manifest.name.clone();
        Error::Unsupported {
            subject: subject.into(),
            backend,
            what,
        }
    }

    fn allocate(&mut self, layout: Vec<StateTensor>) -> Result<State, Error> {
        let with_buffer = |tensor: StateTensor| Ok((tensor, self.backend.allocate(&tensor)?));
        let tensors = layout
            .into_iter()
            .map(with_buffer)
            .collect::<Result<_, Error>>()?;
        Ok(State { step: 0, tensors })
    }
}

fn read_state(
    backend: &dyn Backend,
    state: &State,
    subject: &str,
    kind: StateKind,
) -> Result<TensorData, Error> {
    let (tensor, buffer) = state.find(kind).ok_or_else(|| no_state(subject, kind))?;
    let bytes = backend.download(tensor, buffer)?;
    Ok(TensorData::new(tensor.dtype, tensor.shape, bytes))
}

fn write_state(
    backend: &mut dyn Backend,
    state: &mut State,
    subject: &str,
    kind: StateKind,
    data: &TensorData,
) -> Result<(), Error> {
    let found = state
        .find_mut(kind)
        .ok_or_else(|| no_state(subject, kind))?;
    let (tensor, buffer) = found;
    if data.dtype != tensor.dtype || data.shape != tensor.shape {
        let value = format!("{} {:?}", data.dtype, data.shape);
        let expected = format!("{} {:?}", tensor.dtype, tensor.shape);
        return Err(Error::invalid(subject, kind.name(), value, expected));
    }
    backend.upload(tensor, buffer, &data.bytes)
}

fn no_state(subject: &str, kind: StateKind) -> Error {
    let expected = "a tensor that the method remembers";
    Error::invalid(subject, "state", kind, expected)
}
