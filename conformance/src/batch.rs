//! Batches of adapters on any backend, and everything they consist of as bits.

use std::collections::BTreeMap;
use std::path::Path;

use lora_pro_core::{
    AdapterIo, AdapterSpec, Backend, Config, DType, Damping, Error, HostTensor, Hyper, Method,
    MomentDType, Optimizer, Preset, Rounding, Scale, StepReport, TensorFile,
};
use lora_pro_reference::factors::FactorPair;
use lora_pro_reference::storage::host;

use crate::sample::CaseSpec;
use crate::subject::Member;

/// Makes a backend.
pub type Make<'m> = &'m dyn Fn() -> Box<dyn Backend>;

/// A method with all that it can remember.
pub fn hyper(method: Method) -> Hyper {
    let sgd = method == Method::Sgd;
    Preset::Paper
        .hyper()
        .method(method)
        .damping(Damping::Relative(1e-4))
        .lr(1e-2)
        .weight_decay(if sgd { 0.0 } else { 0.1 })
        .momentum(if sgd { 0.9 } else { 0.0 })
        .amsgrad(!sgd)
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

/// Everything by name, as bits.
pub type Bits = BTreeMap<String, Vec<u8>>;

/// Adapters that are stepped together.
pub struct Batch {
    /// What steps them.
    pub optimizer: Optimizer,
    /// What they are.
    pub specs: Vec<CaseSpec>,
    /// Where they are.
    pub members: Vec<Member>,
}

/// (gA, gB) in memory.
pub type Gradients = Vec<(HostTensor, HostTensor)>;

impl Batch {
    /// At t = 0.
    pub fn start(make: Make, specs: &[CaseSpec], config: impl Into<Config>) -> Result<Self, Error> {
        Self::grouped(make, specs, config, |_| None)
    }

    /// As [`Batch::start`], with the group of each adapter.
    pub fn grouped(
        make: Make,
        specs: &[CaseSpec],
        config: impl Into<Config>,
        group: impl Fn(usize) -> Option<String>,
    ) -> Result<Self, Error> {
        let mut optimizer = Optimizer::new(make(), config.into())?;
        let mut members = Vec::new();
        for (k, spec) in specs.iter().enumerate() {
            let factors = spec.factors();
            let id = optimizer.add_adapter({
                let mut spec = AdapterSpec::new(name(spec), spec.m, spec.n, spec.r)
                    .scale(Scale::Explicit(spec.s))
                    .dtype(spec.dtype);
                spec.group = group(k);
                spec
            })?;
            members.push(Member {
                id,
                a: host(&factors.a, spec.dtype),
                b: host(&factors.b, spec.dtype),
                s: spec.s,
            });
        }
        Ok(Batch {
            optimizer,
            specs: specs.to_vec(),
            members,
        })
    }

    /// The gradients of step t at the factors as they are.
    pub fn gradients(&self, t: u64) -> Gradients {
        let adapters = self.members.iter().zip(&self.specs);
        adapters
            .map(|(member, spec)| in_memory(&spec.gradients(&member.factors(), t), spec.dtype))
            .collect()
    }

    /// A step with these gradients.
    pub fn step_with(&mut self, gradients: &Gradients) -> Result<StepReport, Error> {
        let mut adapters: Vec<AdapterIo<'_>> = self
            .members
            .iter_mut()
            .zip(gradients)
            .map(|(member, (a, b))| member.io(a, b))
            .collect();
        self.optimizer.step(&mut adapters)
    }

    /// Step t, with the gradients that belong to it.
    pub fn step(&mut self, t: u64) -> Result<StepReport, Error> {
        let gradients = self.gradients(t);
        self.step_with(&gradients)
    }

    /// Steps 1 to `steps`, and what is there then.
    pub fn finish(mut self, steps: u64) -> Result<Bits, Error> {
        for t in 1..=steps {
            self.step(t)?;
        }
        self.bits()
    }

    /// What a checkpoint would hold.
    pub fn saved(&mut self) -> Result<TensorFile, Error> {
        let mut file = TensorFile::new();
        self.optimizer.save_to(&mut file)?;
        Ok(file)
    }

    /// Factors, state and step counters.
    pub fn bits(&mut self) -> Result<Bits, Error> {
        let saved = self.saved()?;
        let mut all: Bits = saved
            .tensors
            .into_iter()
            .map(|(name, data)| (name, data.bytes))
            .collect();
        for (member, spec) in self.members.iter().zip(&self.specs) {
            all.insert(format!("{}.A", name(spec)), member.a.bytes().to_vec());
            all.insert(format!("{}.B", name(spec)), member.b.bytes().to_vec());
        }
        for slot in self.optimizer.adapters() {
            let step = slot.state.step.to_le_bytes();
            all.insert(format!("{}.step", slot.spec.name), step.to_vec());
        }
        Ok(all)
    }

    /// The same batch with its optimizer loaded from what it saved, on another backend.
    pub fn moved_to(&mut self, make: Make) -> Result<Batch, Error> {
        let file = self.saved()?;
        Ok(Batch {
            optimizer: Optimizer::load_from(make(), &file, Path::new("checkpoint"))?,
            specs: self.specs.clone(),
            members: self.members.iter().map(Member::copy).collect(),
        })
    }
}

/// A name that does not depend on the place in a batch.
pub fn name(spec: &CaseSpec) -> String {
    format!("adapter of {}", spec.seed)
}

/// Gradients in memory of their storage type.
pub fn in_memory(pair: &FactorPair, dtype: DType) -> (HostTensor, HostTensor) {
    (host(&pair.a, dtype), host(&pair.b, dtype))
}

/// Names of what differs: short enough to read where a comparison of bits fails.
pub fn differing(x: &Bits, y: &Bits) -> Vec<String> {
    let keys: std::collections::BTreeSet<_> = x.keys().chain(y.keys()).collect();
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
