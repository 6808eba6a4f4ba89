//! The work of a row: an optimizer and the tensors that it steps.

use std::time::Instant;

use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Backend, Config, Error, Hyper, MatMut, MatRef, Method,
    MomentDType, Optimizer, Preset, Scale,
};

use crate::fill;
use crate::model::Cost;
use crate::rows::Work;
use crate::shapes::ModelShape;

/// Makes a backend with so many threads.
pub type Engine<'a> = &'a dyn Fn(usize) -> Result<Box<dyn Backend>, Error>;

/// A model's adapters with the hyper-parameters of their step.
#[derive(Clone, Debug)]
pub struct Job {
    /// The adapters.
    pub specs: Vec<AdapterSpec>,
    /// The hyper-parameters of all of them.
    pub hyper: Hyper,
    /// Threads that step.
    pub threads: usize,
}

impl Job {
    /// The job of `work` with the model's sides divided by `divisor`.
    pub fn new(work: &Work, divisor: usize, threads: usize) -> Result<Self, Error> {
        let model = ModelShape::named(&work.model)?.shrunk(divisor);
        let weights = model.weights().into_iter();
        Ok(Job {
            specs: weights
                .map(|(name, [m, n])| spec(name, [m, n], work.rank.min(m).min(n)))
                .collect(),
            hyper: hyper(work),
            threads: work.threads.unwrap_or(threads),
        })
    }

    /// What a step must at least do.
    pub fn cost(&self) -> Cost {
        Cost::of(&self.specs, &self.hyper)
    }

    /// An optimizer that knows the adapters and has not stepped.
    pub fn optimizer(&self, engine: Engine<'_>) -> Result<Optimizer, Error> {
        let mut optimizer = Optimizer::new(engine(self.threads)?, Config::from(self.hyper))?;
        for spec in &self.specs {
            optimizer.add_adapter(spec.clone())?;
        }
        Ok(optimizer)
    }
}

/// An adapter in f32 with the scale of LoRA's usual alpha = 2 r.
pub fn spec(name: String, [m, n]: [usize; 2], r: usize) -> AdapterSpec {
    AdapterSpec::new(name, m, n, r).scale(Scale::Explicit(2.0))
}

/// The recommended preset with the work's method and moments.
///
/// The learning rate is so small that thousands of steps along the same gradient change nothing
/// that matters for speed.
fn hyper(work: &Work) -> Hyper {
    Preset::Recommended
        .hyper()
        .method(work.method)
        .moment_dtype(match work.method {
            Method::Full => work.moments,
            _ => MomentDType::Auto,
        })
        .lr(1e-7)
}

/// The tensors of one adapter.
struct AdapterTensors {
    id: AdapterId,
    a: Vec<f32>,
    b: Vec<f32>,
    grad_a: Vec<f32>,
    grad_b: Vec<f32>,
    a_shape: [usize; 2],
    b_shape: [usize; 2],
}

impl AdapterTensors {
    /// A as LoRA starts it, B small but not zero, gradients of no direction.
    fn new(k: usize, spec: &AdapterSpec) -> Self {
        let (a_len, b_len) = (spec.r * spec.n, spec.m * spec.r);
        let bound = 1.0 / (spec.n as f32).sqrt();
        let seed = 4 * k as u64;
        AdapterTensors {
            id: AdapterId::from_index(k),
            a: fill::numbers(a_len, bound, seed),
            b: fill::numbers(b_len, 0.01, seed + 1),
            grad_a: fill::numbers(a_len, 1e-3, seed + 2),
            grad_b: fill::numbers(b_len, 1e-3, seed + 3),
            a_shape: spec.a_shape(),
            b_shape: spec.b_shape(),
        }
    }

    fn io(&mut self) -> Result<AdapterIo<'_>, Error> {
        let ([r, n], [m, _]) = (self.a_shape, self.b_shape);
        Ok(AdapterIo::new(
            self.id,
            MatMut::new(&mut self.a, [r, n])?,
            MatMut::new(&mut self.b, [m, r])?,
            MatRef::new(&self.grad_a, [r, n])?,
            MatRef::new(&self.grad_b, [m, r])?,
        ))
    }
}

/// The tensors of a job, filled.
pub struct Data(Vec<AdapterTensors>);

impl Data {
    /// Allocates and fills.
    pub fn new(job: &Job) -> Self {
        let tensors = job.specs.iter().enumerate();
        Data(
            tensors
                .map(|(k, spec)| AdapterTensors::new(k, spec))
                .collect(),
        )
    }

    /// Bytes of parameters and gradients.
    pub fn bytes(&self) -> u64 {
        let floats = |t: &AdapterTensors| 2 * (t.a.len() + t.b.len());
        self.0.iter().map(|t| 4 * floats(t) as u64).sum()
    }

    /// Steps all adapters once: the seconds of the step alone.
    pub fn step(&mut self, optimizer: &mut Optimizer) -> Result<f64, Error> {
        let adapters = self.0.iter_mut().map(AdapterTensors::io);
        let mut adapters = adapters.collect::<Result<Vec<_>, _>>()?;
        let start = Instant::now();
        optimizer.step(&mut adapters)?;
        optimizer.sync()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// An optimizer together with what it steps.
pub struct Workload {
    optimizer: Optimizer,
    data: Data,
}

impl Workload {
    /// Ready for the first step.
    pub fn new(job: &Job, engine: Engine<'_>) -> Result<Self, Error> {
        Ok(Workload {
            optimizer: job.optimizer(engine)?,
            data: Data::new(job),
        })
    }

    /// Steps once; the seconds that it took.
    pub fn step(&mut self) -> Result<f64, Error> {
        self.data.step(&mut self.optimizer)
    }

    /// Bytes of the optimizer's state.
    pub fn state_bytes(&self) -> u64 {
        self.optimizer.state_bytes() as u64
    }

    /// Bytes of state, parameters and gradients.
    pub fn bytes(&self) -> u64 {
        self.state_bytes() + self.data.bytes()
    }
}
