//! What is held against the laws: any backend, seen only through core's contract.

use std::path::Path;
use std::sync::Arc;

use lora_pro_core::{
    AdapterId, AdapterIo, AdapterReport, AdapterSpec, Backend, Config, DType, Damping, Error,
    HostTensor, Hyper, Method, Optimizer, Preset, Scale, StepReport, TensorFile, XChoice,
};
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::storage::{self, matrix};
use nalgebra::DMatrix;

use crate::guard::Guarded;
use crate::probe;
use crate::sample::rounded;

/// Makes a backend.
pub type Make = Arc<dyn Fn() -> Box<dyn Backend> + Send + Sync>;

/// A backend under test.
#[derive(Clone)]
pub struct Subject {
    /// Its name in reports.
    pub name: String,
    /// Makes one.
    pub make: Make,
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

/// What is known, where a subject that does not show something is no error.
pub fn shown<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
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
        Box::new(Guarded((self.make)()))
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
        let expected = probe::Expected::of(factors, gradients, x, damping)?;
        let probe = probe::Probe::new(method, self.dtype, factors, &expected);
        let hyper = exact(method)
            .x(x)
            .damping(damping)
            .lr(probe.lr)
            .eps(probe.eps);
        let mut run = Run::start(self, factors, hyper)?;
        let start = run.factors();
        run.step(gradients)?;
        let end = run.factors();
        let moved = FactorPair {
            a: (start.a - end.a) / probe.lr,
            b: (start.b - end.b) / probe.lr,
        };
        Ok(probe.read(factors, &moved))
    }

    /// The adapter's description as [`Run`] registers it.
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

/// Some adapters on their way. What has no index is about the first.
pub struct Run {
    subject: Subject,
    optimizer: Optimizer,
    members: Vec<Member>,
    path: [f64; 2],
}

/// One adapter's place in memory.
pub struct Member {
    /// The adapter.
    pub id: AdapterId,
    /// A, r x n.
    pub a: HostTensor,
    /// B, m x r.
    pub b: HostTensor,
    /// The scale.
    pub s: f64,
}

impl Run {
    /// One adapter at t = 0.
    pub fn start(
        subject: &Subject,
        factors: &Factors,
        config: impl Into<Config>,
    ) -> Result<Self, Error> {
        Self::start_all(subject, std::slice::from_ref(factors), config)
    }

    /// Several adapters at t = 0: `adapter`, `adapter 1`, `adapter 2`, ...
    pub fn start_all(
        subject: &Subject,
        all: &[Factors],
        config: impl Into<Config>,
    ) -> Result<Self, Error> {
        Self::start_grouped(subject, all, &[], config)
    }

    /// As [`Run::start_all`], each adapter in a group; the common one for what is not listed.
    pub fn start_grouped(
        subject: &Subject,
        all: &[Factors],
        groups: &[Option<String>],
        config: impl Into<Config>,
    ) -> Result<Self, Error> {
        let mut optimizer = Optimizer::new(subject.backend(), config.into())?;
        let mut members = Vec::new();
        for (k, factors) in all.iter().enumerate() {
            let mut spec = subject.spec(factors);
            if k > 0 {
                spec.name = format!("{} {k}", spec.name);
            }
            spec.group = groups.get(k).cloned().flatten();
            let id = optimizer.add_adapter(spec)?;
            members.push(Member {
                id,
                a: subject.host(&factors.a),
                b: subject.host(&factors.b),
                s: factors.s,
            });
        }
        let path = members.first().map_or([0.0; 2], Member::norms);
        Ok(Run {
            subject: subject.clone(),
            optimizer,
            members,
            path,
        })
    }

    /// One step of all adapters with these gradients.
    pub fn step_all(&mut self, gradients: &[FactorPair]) -> Result<StepReport, Error> {
        let gradients: Vec<_> = gradients
            .iter()
            .map(|pair| (self.subject.host(&pair.a), self.subject.host(&pair.b)))
            .collect();
        let mut adapters: Vec<_> = self
            .members
            .iter_mut()
            .zip(&gradients)
            .map(|(member, (grad_a, grad_b))| member.io(grad_a, grad_b))
            .collect();
        let report = self.optimizer.step(&mut adapters)?;
        let moved = self.report().update_norm;
        self.path = [self.path[0] + moved.a, self.path[1] + moved.b];
        Ok(report)
    }

    /// One step of the first adapter.
    pub fn step(&mut self, gradients: &FactorPair) -> Result<StepReport, Error> {
        self.step_all(std::slice::from_ref(gradients))
    }

    /// The factors now.
    pub fn factors(&self) -> Factors {
        self.members[0].factors()
    }

    /// All adapters.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The optimizer and all adapters: for steps that are not as they should be.
    pub fn parts(&mut self) -> (&mut Optimizer, &mut [Member]) {
        (&mut self.optimizer, &mut self.members)
    }

    /// |A| and |B| at the start plus the lengths of all updates: what rounding errors of the
    /// factors are measured against, since the factors themselves may come near to zero.
    pub fn path(&self) -> [f64; 2] {
        self.path
    }

    /// What the last step did to the first adapter.
    pub fn report(&self) -> AdapterReport {
        self.optimizer.adapters()[self.members[0].id.index()].report
    }

    /// Steps taken.
    pub fn t(&self) -> u64 {
        self.optimizer.adapters()[self.members[0].id.index()]
            .state
            .step
    }

    /// A state tensor by its name.
    pub fn state(&mut self, name: &str) -> Result<DMatrix<f64>, Error> {
        let file = self.saved()?;
        let key = format!("state.adapter.{name}");
        let found = file.tensors.get(&key).and_then(|data| {
            let shape = [data.shape[0], data.shape[1]];
            HostTensor::from_bytes(data.dtype, shape, data.bytes.clone())
        });
        match found {
            Some(tensor) => Ok(matrix(&tensor.view())),
            None => Err(Error::file(
                "the saved state",
                format!("it has no tensor `{key}`"),
            )),
        }
    }

    /// A state tensor by its name, where the subject shows it.
    pub fn shown(&mut self, name: &str) -> Result<Option<DMatrix<f64>>, Error> {
        shown(self.state(name))
    }

    /// The factors, and as much of the state as the subject shows.
    pub fn snapshot(&mut self) -> Result<Snapshot, Error> {
        Ok(Snapshot {
            factors: self.factors(),
            saved: shown(self.saved())?,
            t: self.t(),
        })
    }

    /// Everything that a checkpoint would hold.
    pub fn saved(&mut self) -> Result<TensorFile, Error> {
        let mut file = TensorFile::new();
        self.optimizer.save_to(&mut file)?;
        Ok(file)
    }

    /// The same run, its optimizer rebuilt from what a checkpoint would hold.
    pub fn reloaded(&mut self, subject: &Subject) -> Result<Self, Error> {
        let file = self.saved()?;
        let optimizer = Optimizer::load_from(subject.backend(), &file, Path::new("checkpoint"))?;
        Ok(Run {
            subject: subject.clone(),
            optimizer,
            members: self.members.iter().map(Member::copy).collect(),
            path: self.path,
        })
    }
}

/// A run at one moment, to be compared.
#[derive(PartialEq)]
pub struct Snapshot {
    factors: Factors,
    saved: Option<TensorFile>,
    t: u64,
}

impl Member {
    fn norms(&self) -> [f64; 2] {
        let factors = self.factors();
        [factors.a.norm(), factors.b.norm()]
    }

    /// The factors now.
    pub fn factors(&self) -> Factors {
        Factors {
            b: matrix(&self.b.view()),
            a: matrix(&self.a.view()),
            s: self.s,
        }
    }

    /// The tensors of a step.
    pub fn io<'t>(&'t mut self, grad_a: &'t HostTensor, grad_b: &'t HostTensor) -> AdapterIo<'t> {
        AdapterIo::new(
            self.id,
            self.a.view_mut(),
            self.b.view_mut(),
            grad_a.view(),
            grad_b.view(),
        )
    }

    /// The same values in memory of their own.
    pub fn copy(&self) -> Member {
        Member {
            id: self.id,
            a: self.a.clone(),
            b: self.b.clone(),
            s: self.s,
        }
    }
}
