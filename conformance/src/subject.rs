//! What is held against the laws: any backend, seen only through core's contract.

use std::sync::Arc;

use lora_pro_core::{
    AdapterSpec, Backend, Config, DType, Damping, Error, HostTensor, Hyper, Method, Preset, Scale,
    XChoice,
};
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::storage;
use nalgebra::DMatrix;

use crate::guard::CatchPanic;
use crate::probe;
use crate::run::Run;
use crate::sample::rounded;

/// Makes a backend.
pub type BackendFactory = Arc<dyn Fn() -> Box<dyn Backend> + Send + Sync>;

/// A backend under test.
#[derive(Clone)]
pub struct Subject {
    /// Its name in reports.
    pub name: String,
    /// Makes one.
    pub make: BackendFactory,
    /// Storage type of A, B and their gradients.
    pub dtype: DType,
}

/// Hyper-parameters of the laws: the exact pseudo-inverse and a learning rate of 1e-3.
pub fn exact(method: Method) -> Hyper {
    Preset::Paper
        .hyper()
        .method(method)
        .damping(Damping::None)
        .lr(1e-3)
}

impl Subject {
    /// A subject by its name and how it is made.
    pub fn new(
        name: impl Into<String>,
        dtype: DType,
        make: impl Fn() -> Box<dyn Backend> + Send + Sync + 'static,
    ) -> Self {
        Subject {
            name: name.into(),
            make: Arc::new(make),
            dtype,
        }
    }

    /// The backend, its panics turned into errors.
    pub fn backend(&self) -> Box<dyn Backend> {
        Box::new(CatchPanic((self.make)()))
    }

    /// A run of one adapter at t = 0.
    pub fn start(&self, factors: &Factors, config: impl Into<Config>) -> Result<Run, Error> {
        self.start_all(std::slice::from_ref(factors), &[], config)
    }

    /// A run of several adapters at t = 0: `adapter`, `adapter 1`, `adapter 2`, ..., each in its
    /// group, where one is listed.
    pub fn start_all(
        &self,
        all: &[Factors],
        groups: &[Option<String>],
        config: impl Into<Config>,
    ) -> Result<Run, Error> {
        let mut run = Run::new(self.backend(), config)?;
        for (k, factors) in all.iter().enumerate() {
            let mut spec = self.spec(factors);
            if k > 0 {
                spec.name = format!("{} {k}", spec.name);
            }
            spec.group = groups.get(k).cloned().flatten();
            run.add_adapter(spec, factors)?;
        }
        Ok(run)
    }

    /// (dA, dB) for the given gradients, with exact inverses.
    pub fn adjusted(
        &self,
        factors: &Factors,
        gradients: &FactorPair,
        method: Method,
        x: XChoice,
    ) -> Result<FactorPair, Error> {
        self.adjusted_with(factors, gradients, method, x, Damping::None)
    }

    /// (dA, dB) for the given gradients.
    pub fn adjusted_with(
        &self,
        factors: &Factors,
        gradients: &FactorPair,
        method: Method,
        x: XChoice,
        damping: Damping,
    ) -> Result<FactorPair, Error> {
        let expected = probe::ExpectedSizes::of(factors, gradients, x, damping)?;
        let probe = probe::Probe::new(method, self.dtype, factors, &expected);
        let hyper = exact(method)
            .x(x)
            .damping(damping)
            .lr(probe.lr)
            .eps(probe.eps);
        let mut run = self.start(factors, hyper)?;
        let start = run.factors();
        run.step(gradients)?;
        let end = run.factors();
        let moved = FactorPair {
            a: (start.a - end.a) / probe.lr,
            b: (start.b - end.b) / probe.lr,
        };
        Ok(probe.read(factors, &moved))
    }

    /// The description that [`Subject::start`] registers an adapter with.
    pub fn spec(&self, factors: &Factors) -> AdapterSpec {
        let (m, r) = factors.b.shape();
        AdapterSpec::new("adapter", m, factors.a.ncols(), r)
            .scale(Scale::Explicit(factors.s))
            .dtype(self.dtype)
    }

    /// A matrix in host memory, rounded to the storage type.
    pub fn host(&self, values: &DMatrix<f64>) -> HostTensor {
        storage::host(values, self.dtype)
    }

    /// Factors as the subject is given them.
    pub fn stored(&self, factors: &Factors) -> Factors {
        Factors {
            b: rounded(self.dtype, &factors.b),
            a: rounded(self.dtype, &factors.a),
            s: factors.s,
        }
    }
}
