//! The optimizer front: owns configuration, state and step counters; a backend computes.

use std::collections::HashSet;

use crate::{
    AdapterId, AdapterReport, AdapterSpec, Backend, Config, Control, Error, Hyper, Manifest,
    PairSlot, ParamId, ParamSlot, ParamSpec, Slots, State, StateTensor, StepIo, StepReport, check,
    state::{adapter_layout, param_layout},
};

/// LoRA-Pro for a whole model.
///
/// Register every adapter (and every parameter without a pair) once, then call
/// [`Optimizer::step`] with their tensors after each backward pass.
pub struct Optimizer {
    backend: Box<dyn Backend>,
    manifest: Manifest,
    config: Config,
    pairs: Vec<PairSlot>,
    params: Vec<ParamSlot>,
    names: HashSet<String>,
    steps: u64,
    grad_scale: f64,
    stream: u64,
    seen: Vec<bool>,
}

impl Optimizer {
    /// An optimizer without adapters. Refuses a configuration that is out of range.
    pub fn new(backend: Box<dyn Backend>, config: Config) -> Result<Self, Error> {
        config.validate()?;
        Ok(Optimizer {
            manifest: backend.manifest(),
            backend,
            config,
            pairs: Vec::new(),
            params: Vec::new(),
            names: HashSet::new(),
            steps: 0,
            grad_scale: 1.0,
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
        self.pairs.push(PairSlot {
            spec,
            hyper,
            state,
            report: AdapterReport::default(),
        });
        Ok(AdapterId(self.pairs.len() - 1))
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
        Ok(ParamId(self.params.len() - 1))
    }

    /// Steps what `io` lists. On an error nothing has changed: no parameter, state or counter.
    pub fn step(&mut self, io: StepIo<'_, '_>) -> Result<StepReport, Error> {
        check::step_io(
            &self.manifest,
            &self.pairs,
            &self.params,
            &io,
            &mut self.seen,
        )?;
        let control = Control {
            lr_factor: self.config.schedule.factor(self.steps + 1),
            grad_scale: self.grad_scale,
            max_grad_norm: self.config.max_grad_norm,
            on_non_finite: self.config.on_non_finite,
            stream: self.stream,
        };
        let slots = Slots {
            pairs: &mut self.pairs,
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
            pairs: &mut self.pairs,
            params: &mut self.params,
        };
        self.backend.sync(slots)
    }

    /// Factor on all gradients of the coming steps, 1 / (loss scale * accumulation steps).
    pub fn set_grad_scale(&mut self, factor: f64) -> Result<(), Error> {
        if !(factor.is_finite() && factor > 0.0) {
            return Err(Error::invalid(
                "the optimizer",
                "grad_scale",
                factor,
                "positive and finite",
            ));
        }
        self.grad_scale = factor;
        Ok(())
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

    /// The adapters, in the order of registration, with their last reports.
    pub fn adapters(&self) -> &[PairSlot] {
        &self.pairs
    }

    /// The parameters without a pair, in the order of registration.
    pub fn params(&self) -> &[ParamSlot] {
        &self.params
    }

    /// Bytes of all optimizer state.
    pub fn state_bytes(&self) -> usize {
        let pairs = self.pairs.iter().map(|slot| slot.state.bytes());
        let params = self.params.iter().map(|slot| slot.state.bytes());
        pairs.chain(params).sum()
    }

    /// All states with their owner's name: for checkpoints.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&str, &State)> {
        let pairs = self
            .pairs
            .iter()
            .map(|slot| (slot.spec.name.as_str(), &slot.state));
        let params = self
            .params
            .iter()
            .map(|slot| (slot.spec.name.as_str(), &slot.state));
        pairs.chain(params)
    }

    /// As `states`, to write, together with the backend that owns the memory.
    pub(crate) fn states_mut(
        &mut self,
    ) -> (&mut dyn Backend, impl Iterator<Item = (&str, &mut State)>) {
        let pairs = self
            .pairs
            .iter_mut()
            .map(|slot| (slot.spec.name.as_str(), &mut slot.state));
        let params = self
            .params
            .iter_mut()
            .map(|slot| (slot.spec.name.as_str(), &mut slot.state));
        (self.backend.as_mut(), pairs.chain(params))
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.backend.as_ref()
    }

    pub(crate) fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    fn check_new(&self, subject: &str, name: &str, dtype: crate::DType) -> Result<(), Error> {
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
        let takes = |tensor: &&StateTensor| !self.manifest.moment_dtypes.contains(&tensor.dtype);
        match layout.iter().find(takes) {
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
