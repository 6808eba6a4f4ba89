//! Adapters and unpaired parameters on a backend, with the host tensors that each step borrows.
//! Every check that steps a backend does so through a [`Run`].

use std::collections::BTreeMap;
use std::path::Path;

use lora_pro_core::backend::StateKind;
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterReport, AdapterSpec, Backend, Config, Error, HostTensor,
    Optimizer, ParamId, ParamIo, ParamSpec, PerFactor, StepReport, TensorData, TensorFile,
};
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::storage::{host, matrix};
use nalgebra::DMatrix;

/// What a run consists of. Methods that name no adapter are about the first.
pub struct Run {
    /// What steps the tensors.
    pub optimizer: Optimizer,
    /// The adapters' tensors, in the order of their ids.
    pub adapters: Vec<AdapterTensors>,
    /// The unpaired parameters' tensors, in the order of their ids.
    pub params: Vec<ParamTensor>,
    /// |A| and |B| of the first adapter at the start plus the lengths of all updates: what rounding
    /// errors of the factors are measured against, since the factors may come near to zero.
    pub path: PerFactor,
}

/// One adapter's tensors.
#[derive(Clone)]
pub struct AdapterTensors {
    /// The adapter.
    pub id: AdapterId,
    /// A, r x n.
    pub a: HostTensor,
    /// B, m x r.
    pub b: HostTensor,
    /// W0, m x n, where the step is to decay it.
    pub w0: Option<HostTensor>,
    /// The scale.
    pub s: f64,
}

/// One unpaired parameter.
#[derive(Clone)]
pub struct ParamTensor {
    /// The parameter.
    pub id: ParamId,
    /// Its values.
    pub value: HostTensor,
}

/// (gA, gB) of each adapter, in their storage types.
pub type Gradients = Vec<(HostTensor, HostTensor)>;

/// Everything that a step may write, by name.
pub type Tensors = BTreeMap<String, HostTensor>;

/// [`Tensors`] and step counters, as bits.
pub type Bits = BTreeMap<String, Vec<u8>>;

/// A run at one moment, to be compared.
#[derive(PartialEq)]
pub struct Snapshot {
    factors: Factors,
    saved: Option<TensorFile>,
    t: u64,
}

/// The value, or `None` where a subject does not support being asked for it.
pub fn if_supported<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Run {
    /// Without adapters.
    pub fn new(backend: Box<dyn Backend>, config: impl Into<Config>) -> Result<Self, Error> {
        Ok(Run {
            optimizer: Optimizer::new(backend, config.into())?,
            adapters: Vec::new(),
            params: Vec::new(),
            path: PerFactor::default(),
        })
    }

    /// Registers an adapter that starts from these factors, rounded to its storage type.
    pub fn add_adapter(&mut self, spec: AdapterSpec, factors: &Factors) -> Result<(), Error> {
        let (dtype, s) = (spec.dtype, spec.s());
        let id = self.optimizer.add_adapter(spec)?;
        let tensors = AdapterTensors {
            id,
            a: host(&factors.a, dtype),
            b: host(&factors.b, dtype),
            w0: None,
            s,
        };
        if self.adapters.is_empty() {
            let stored = tensors.factors();
            self.path = [stored.a.norm(), stored.b.norm()].into();
        }
        self.adapters.push(tensors);
        Ok(())
    }

    /// Registers an unpaired parameter, its values rounded to its storage type.
    pub fn add_param(&mut self, spec: ParamSpec, value: &DMatrix<f64>) -> Result<(), Error> {
        let value = host(value, spec.dtype);
        let id = self.optimizer.add_param(spec)?;
        self.params.push(ParamTensor { id, value });
        Ok(())
    }

    /// One step of the first adapter, its gradients rounded to its storage type.
    pub fn step(&mut self, gradients: &FactorPair) -> Result<StepReport, Error> {
        self.step_all(std::slice::from_ref(gradients))
    }

    /// One step of all adapters.
    pub fn step_all(&mut self, gradients: &[FactorPair]) -> Result<StepReport, Error> {
        let adapters = self.adapters.iter().zip(gradients);
        let gradients: Gradients = adapters
            .map(|(adapter, pair)| adapter.in_memory(pair))
            .collect();
        self.step_tensors(&gradients, &[])
    }

    /// One step of the first adapters and the first parameters, as many as there are gradients.
    pub fn step_tensors(
        &mut self,
        adapters: &[(HostTensor, HostTensor)],
        params: &[HostTensor],
    ) -> Result<StepReport, Error> {
        let pairs = self.adapters.iter_mut().zip(adapters);
        let mut adapters: Vec<_> = pairs
            .map(|(adapter, (grad_a, grad_b))| adapter.io(grad_a, grad_b))
            .collect();
        let values = self.params.iter_mut().zip(params);
        let mut params: Vec<_> = values
            .map(|(param, grad)| ParamIo::new(param.id, param.value.view_mut(), grad.view()))
            .collect();
        let report = self
            .optimizer
            .step_with_params(&mut adapters, &mut params)?;
        if let Some(slot) = self.optimizer.adapters().first() {
            let moved = slot.report.update_norm;
            self.path = [self.path.a + moved.a, self.path.b + moved.b].into();
        }
        Ok(report)
    }

    /// The factors now.
    pub fn factors(&self) -> Factors {
        self.adapters[0].factors()
    }

    /// What the last step did.
    pub fn report(&self) -> AdapterReport {
        self.optimizer.adapters()[0].report
    }

    /// Steps taken.
    pub fn t(&self) -> u64 {
        self.optimizer.adapters()[0].state.step
    }

    /// A state tensor; `None` where the subject does not show its state.
    ///
    /// # Errors
    /// A state without this tensor.
    pub fn state(&mut self, kind: StateKind) -> Result<Option<DMatrix<f64>>, Error> {
        self.optimizer.sync()?;
        let id = self.adapters[0].id;
        let data = if_supported(self.optimizer.adapter_state(id, kind))?;
        let tensor = data
            .map(|data| host_tensor(kind.name(), data))
            .transpose()?;
        Ok(tensor.map(|tensor| matrix(&tensor.view())))
    }

    /// Everything that a checkpoint would hold.
    pub fn saved(&mut self) -> Result<TensorFile, Error> {
        let mut file = TensorFile::new();
        self.optimizer.save_to(&mut file)?;
        Ok(file)
    }

    /// The same numbers, to the last bit, on another backend: its optimizer is loaded from what a
    /// checkpoint would hold.
    pub fn moved_to(&mut self, backend: Box<dyn Backend>) -> Result<Run, Error> {
        let file = self.saved()?;
        Ok(Run {
            optimizer: Optimizer::load_from(backend, &file, Path::new("the saved state"))?,
            adapters: self.adapters.clone(),
            params: self.params.clone(),
            path: self.path,
        })
    }

    /// The first adapter's factors and counter, and as much of the state as the subject shows.
    pub fn snapshot(&mut self) -> Result<Snapshot, Error> {
        Ok(Snapshot {
            factors: self.factors(),
            saved: if_supported(self.saved())?,
            t: self.t(),
        })
    }

    /// Everything that a step may write, by name.
    pub fn tensors(&mut self) -> Result<Tensors, Error> {
        let mut all = Tensors::new();
        for (name, data) in self.saved()?.tensors {
            let tensor = host_tensor(&name, data)?;
            all.insert(name, tensor);
        }
        for (slot, adapter) in self.optimizer.adapters().iter().zip(&self.adapters) {
            let name = &slot.spec.name;
            all.insert(format!("{name}.A"), adapter.a.clone());
            all.insert(format!("{name}.B"), adapter.b.clone());
            let w0 = adapter.w0.iter();
            all.extend(w0.map(|w0| (format!("{name}.W0"), w0.clone())));
        }
        for (slot, param) in self.optimizer.params().iter().zip(&self.params) {
            all.insert(slot.spec.name.clone(), param.value.clone());
        }
        Ok(all)
    }

    /// [`Run::tensors`] and the step counters, as bits.
    pub fn bits(&mut self) -> Result<Bits, Error> {
        let tensors = self.tensors()?.into_iter();
        let mut all: Bits = tensors
            .map(|(name, tensor)| (name, tensor.bytes().to_vec()))
            .collect();
        for slot in self.optimizer.adapters() {
            let step = slot.state.step.to_le_bytes();
            all.insert(format!("{}.step", slot.spec.name), step.to_vec());
        }
        Ok(all)
    }
}

impl AdapterTensors {
    /// The factors now.
    pub fn factors(&self) -> Factors {
        Factors {
            b: matrix(&self.b.view()),
            a: matrix(&self.a.view()),
            s: self.s,
        }
    }

    /// Gradients in memory of the adapter's storage type.
    pub fn in_memory(&self, pair: &FactorPair) -> (HostTensor, HostTensor) {
        let dtype = self.a.dtype();
        (host(&pair.a, dtype), host(&pair.b, dtype))
    }

    /// What a step borrows.
    pub fn io<'t>(&'t mut self, grad_a: &'t HostTensor, grad_b: &'t HostTensor) -> AdapterIo<'t> {
        let (a, b) = (self.a.view_mut(), self.b.view_mut());
        let mut io = AdapterIo::new(self.id, a, b, grad_a.view(), grad_b.view());
        io.w0 = self.w0.as_mut().map(HostTensor::view_mut);
        io
    }
}

/// A saved tensor with two dimensions.
fn host_tensor(name: &str, data: TensorData) -> Result<HostTensor, Error> {
    let tensor = match data.shape[..] {
        [rows, cols] => HostTensor::from_bytes(data.dtype, [rows, cols], data.bytes),
        _ => None,
    };
    tensor.ok_or_else(|| Error::file("the saved state", format!("`{name}` has a wrong size")))
}
