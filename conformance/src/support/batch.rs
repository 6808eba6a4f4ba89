//! Several adapters, each described by a few numbers, that are stepped together.

use std::collections::BTreeSet;

use lora_pro_core::{
    AdapterSpec, Backend, Config, DType, Damping, Error, HostTensor, Hyper, Method, MomentDType,
    Preset, Rounding, Scale, StateKind, StepReport, TensorFile,
};
use lora_pro_reference::factors::FactorPair;
use lora_pro_reference::storage::host;

use crate::methods::has_moments;
use crate::run::Run;
use crate::sample::CaseSpec;

pub use crate::run::{Bits, Gradients};

/// Makes a backend.
pub type BackendFn<'m> = &'m dyn Fn() -> Box<dyn Backend>;

/// A method with all that it can remember.
pub fn hyper(method: Method) -> Hyper {
    let adaptive = has_moments(method);
    Preset::Paper
        .hyper()
        .method(method)
        .damping(Damping::Relative(1e-4))
        .lr(1e-2)
        .weight_decay(if adaptive { 0.1 } else { 0.0 })
        .momentum(if adaptive { 0.0 } else { 0.9 })
        .amsgrad(adaptive)
}

/// An ordinary adapter after some training.
pub fn adapter(m: usize, n: usize, r: usize, dtype: DType) -> CaseSpec {
    CaseSpec {
        m,
        n,
        r,
        rank_a: r,
        rank_b: r,
        kappa_a: 3.0,
        kappa_b: 10.0,
        size_a: 2.0,
        size_b: 0.5,
        size_g: 0.1,
        s: 1.5,
        dtype,
        seed: (m * 1_000_000 + n * 1000 + r) as u64,
        ..CaseSpec::default()
    }
}

/// Tiny and large ones, so that a backend has to spread its work in more than one way.
pub fn mixed(dtype: DType) -> Vec<CaseSpec> {
    vec![
        adapter(3, 2, 1, dtype),
        adapter(65, 129, 5, dtype),
        adapter(700, 900, 16, dtype),
        adapter(7, 200, 2, dtype),
        adapter(64, 6, 6, dtype),
    ]
}

/// A run of adapters with what describes them.
pub struct Batch {
    /// The adapters, in the order of `specs`.
    pub run: Run,
    /// What describes them.
    pub specs: Vec<CaseSpec>,
}

impl Batch {
    /// At t = 0.
    pub fn start(
        make: BackendFn,
        specs: &[CaseSpec],
        config: impl Into<Config>,
    ) -> Result<Self, Error> {
        Self::grouped(make, specs, config, |_| None)
    }

    /// As [`Batch::start`], with the group of each adapter.
    pub fn grouped(
        make: BackendFn,
        specs: &[CaseSpec],
        config: impl Into<Config>,
        group: impl Fn(usize) -> Option<String>,
    ) -> Result<Self, Error> {
        let mut run = Run::new(make(), config)?;
        for (k, spec) in specs.iter().enumerate() {
            let mut adapter = AdapterSpec::new(name(spec), spec.m, spec.n, spec.r)
                .scale(Scale::Explicit(spec.s))
                .dtype(spec.dtype);
            adapter.group = group(k);
            run.add_adapter(adapter, &spec.factors())?;
        }
        let specs = specs.to_vec();
        Ok(Batch { run, specs })
    }

    /// The gradients of step t at the factors as they are.
    pub fn gradients(&self, t: u64) -> Gradients {
        let adapters = self.run.adapters.iter().zip(&self.specs);
        adapters
            .map(|(adapter, spec)| adapter.in_memory(&spec.gradients(&adapter.factors(), t)))
            .collect()
    }

    /// A step with these gradients.
    pub fn step_with(&mut self, gradients: &Gradients) -> Result<StepReport, Error> {
        self.run.step_tensors(gradients, &[])
    }

    /// Step t, with the gradients that belong to it.
    pub fn step(&mut self, t: u64) -> Result<StepReport, Error> {
        let gradients = self.gradients(t);
        self.step_with(&gradients)
    }

    /// Steps 1 to `steps`, and everything that is there then.
    pub fn finish(mut self, steps: u64) -> Result<Bits, Error> {
        for t in 1..=steps {
            self.step(t)?;
        }
        self.bits()
    }

    /// As [`Run::saved`].
    pub fn saved(&mut self) -> Result<TensorFile, Error> {
        self.run.saved()
    }

    /// As [`Run::bits`].
    pub fn bits(&mut self) -> Result<Bits, Error> {
        self.run.bits()
    }

    /// As [`Run::moved_to`].
    pub fn moved_to(&mut self, make: BackendFn) -> Result<Batch, Error> {
        let specs = self.specs.clone();
        let run = self.run.moved_to(make())?;
        Ok(Batch { run, specs })
    }
}

/// A name that does not depend on the place in a batch.
pub fn name(spec: &CaseSpec) -> String {
    format!("adapter of {}", spec.seed)
}

/// The name of a state tensor in what [`Batch::saved`] gives.
pub fn state_key(spec: &CaseSpec, kind: StateKind) -> String {
    format!("state.{}.{kind}", name(spec))
}

/// Gradients in memory of their storage type.
pub fn in_memory(pair: &FactorPair, dtype: DType) -> (HostTensor, HostTensor) {
    (host(&pair.a, dtype), host(&pair.b, dtype))
}

/// Names of what differs: short enough to read where a comparison of bits fails.
pub fn differing(x: &Bits, y: &Bits) -> Vec<String> {
    let keys: BTreeSet<_> = x.keys().chain(y.keys()).collect();
    let differ = |key: &&String| x.get(*key) != y.get(*key);
    keys.into_iter().filter(differ).cloned().collect()
}

/// Moment types and roundings beside the ordinary ones, which only some backends have.
pub fn variants(dtype: DType) -> Vec<(MomentDType, Rounding)> {
    let mut all = vec![(MomentDType::Auto, Rounding::Nearest)];
    all.push((MomentDType::Bf16, Rounding::Nearest));
    if matches!(dtype, DType::Bf16 | DType::F16) {
        all.push((MomentDType::Auto, Rounding::MasterCopy));
    }
    all
}

/// [`variants`], with those that the reference does not have.
pub fn all_variants(dtype: DType) -> Vec<(MomentDType, Rounding)> {
    let mut all = variants(dtype);
    all.push((MomentDType::EightBit, Rounding::Nearest));
    if matches!(dtype, DType::Bf16 | DType::F16) {
        all.push((MomentDType::Auto, Rounding::Stochastic));
    }
    all
}
