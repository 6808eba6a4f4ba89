//! The class `CompiledBackend`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lora_pro::backend::State;
use lora_pro::{
    AdapterId, AdapterIo, AdapterSpec, Backend, Config, CudaBackend, DType, Error, Manifest,
    Optimizer, ParamId, ParamIo, ParamSpec, ReferenceBackend, Scale, StateKind, StepReport,
    TensorData, cpu, cuda, reference,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::cpu::TorchCpu;
use crate::error::{exception, from_core};
use crate::tensor::{RawTensor, Torch};

/// Core's optimizer with one of its backends, for one device.
#[pyclass(frozen, module = "lorapro._lorapro")]
pub struct CompiledBackend {
    /// Locked by threads that have left the interpreter alone: one that held it and waited for the
    /// other would wait for ever.
    optimizer: Mutex<Optimizer>,
    threads: Arc<AtomicUsize>,
    manifest: Manifest,
}

/// An adapter's number, A, B and their gradients.
type AdapterTensors<'py> = (
    usize,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
);

/// A parameter's number, its value and its gradient.
type ParamTensors<'py> = (usize, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// State tensors by name, as core's rows and columns.
type StateTensors = Vec<(StateKind, TensorData)>;

#[pymethods]
impl CompiledBackend {
    /// The backend `cpu`, `cuda` or `reference`; `device` is the ordinal of a CUDA device.
    #[new]
    #[pyo3(signature = (name, device = 0))]
    fn new(py: Python<'_>, name: &str, device: usize) -> PyResult<Self> {
        Torch::get(py)?;
        let threads = Arc::new(AtomicUsize::new(1));
        let backend = make(name, device, &threads)?;
        let optimizer = Optimizer::new(backend, Config::default()).map_err(from_core)?;
        Ok(CompiledBackend {
            manifest: optimizer.manifest().clone(),
            optimizer: Mutex::new(optimizer),
            threads,
        })
    }

    /// What the backend is and can do: the fields of core's `Manifest`.
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let text =
            serde_json::to_string(&self.manifest).map_err(|error| exception(error.to_string()))?;
        py.import("json")?.call_method1("loads", (text,))
    }

    /// The configuration of the coming steps, as JSON; see `resolve_config`.
    fn configure(&self, py: Python<'_>, config: &str) -> PyResult<()> {
        let config = parse_config(config)?;
        self.with(py, |optimizer| optimizer.set_config(config))
    }

    /// Registers an adapter (A is r x n, B is m x r) and gives its number. One that is registered alike and was
    /// never stepped is found: an interrupt (Ctrl-C) may have come before the caller could note its number.
    #[allow(clippy::too_many_arguments)] // by keyword in Python
    #[pyo3(signature = (name, m, n, r, scale, dtype, group))]
    fn add_adapter(
        &self,
        py: Python<'_>,
        name: &str,
        m: usize,
        n: usize,
        r: usize,
        scale: f64,
        dtype: &str,
        group: &str,
    ) -> PyResult<usize> {
        let dtype = dtype.parse::<DType>().map_err(from_core)?;
        let spec = AdapterSpec::new(name, m, n, r)
            .scale(Scale::Explicit(scale))
            .dtype(dtype)
            .group(group);
        self.with(py, |optimizer| {
            let mut adapters = optimizer.adapters().iter();
            match adapters.position(|slot| slot.spec == spec && slot.state.step == 0) {
                Some(known) => Ok(known),
                None => optimizer.add_adapter(spec).map(AdapterId::index),
            }
        })
    }

    /// Registers an unpaired parameter and gives its number; finds one as `add_adapter` does.
    fn add_param(
        &self,
        py: Python<'_>,
        name: &str,
        numel: usize,
        dtype: &str,
        group: &str,
    ) -> PyResult<usize> {
        let dtype = dtype.parse::<DType>().map_err(from_core)?;
        let spec = ParamSpec::new(name, 1, numel).dtype(dtype).group(group);
        self.with(py, |optimizer| {
            let mut params = optimizer.params().iter();
            match params.position(|slot| slot.spec == spec && slot.state.step == 0) {
                Some(known) => Ok(known),
                None => optimizer.add_param(spec).map(ParamId::index),
            }
        })
    }

    /// The scale of an adapter in the coming steps.
    fn set_scale(&self, py: Python<'_>, adapter: usize, scale: f64) -> PyResult<()> {
        let (id, scale) = (AdapterId::from_index(adapter), Scale::Explicit(scale));
        self.with(py, |optimizer| optimizer.set_scale(id, scale))
    }

    /// Steps adapters, `(number, A, B, grad A, grad B)`, and parameters, `(number, value, grad)`.
    ///
    /// On an error nothing has changed. `threads` is for the CPU, `stream` (a `CUstream` as an
    /// integer) for CUDA. All gradients are multiplied by `grad_scale` first.
    fn step<'py>(
        &self,
        py: Python<'py>,
        adapters: Vec<AdapterTensors<'py>>,
        params: Vec<ParamTensors<'py>>,
        threads: usize,
        stream: u64,
        grad_scale: f64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let torch = Torch::get(py)?;
        let adapters = self.read_adapters(py, torch, &adapters)?;
        let params = self.read_params(py, torch, &params)?;
        self.threads.store(threads, Ordering::Relaxed);
        let report = self.with(py, |optimizer| {
            optimizer.set_stream(stream);
            optimizer.set_grad_scale(grad_scale)?;
            // SAFETY: the caller's lists keep the tensors alive, and torch's users write none while
            // a step runs. `read_adapters` and `read_params` have made sure that what is written
            // reaches each of its elements once; that no tensor is listed twice, the package does.
            let (mut adapters, mut params) =
                unsafe { (adapter_views(&adapters), param_views(&params)) };
            optimizer.step_with_params(&mut adapters, &mut params)
        })?;
        step_report(py, &report)
    }

    /// An adapter's step counter and its state tensors by name.
    fn adapter_state<'py>(
        &self,
        py: Python<'py>,
        adapter: usize,
    ) -> PyResult<(u64, Bound<'py, PyDict>)> {
        let id = AdapterId::from_index(adapter);
        let (steps, tensors) = self.with(py, |optimizer| {
            optimizer.sync()?;
            let state = &optimizer.adapter(id)?.state;
            let tensors = kinds(state).map(|kind| Ok((kind, optimizer.adapter_state(id, kind)?)));
            Ok((
                state.step,
                tensors.collect::<Result<StateTensors, Error>>()?,
            ))
        })?;
        Ok((steps, to_torch(py, tensors, |shape| shape)?))
    }

    /// Replaces an adapter's step counter and all of its state tensors.
    fn set_adapter_state(
        &self,
        py: Python<'_>,
        adapter: usize,
        steps: u64,
        tensors: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let id = AdapterId::from_index(adapter);
        let (subject, layout) = self.with(py, |optimizer| {
            let slot = optimizer.adapter(id)?;
            Ok((slot.spec.subject(), layout(&slot.state)))
        })?;
        let tensors = from_torch(py, &subject, &layout, tensors)?;
        self.with(py, |optimizer| {
            for (kind, data) in &tensors {
                optimizer.set_adapter_state(id, *kind, data)?;
            }
            optimizer.set_adapter_steps(id, steps)
        })
    }

    /// An unpaired parameter's step counter and its state tensors by name, as vectors.
    fn param_state<'py>(
        &self,
        py: Python<'py>,
        param: usize,
    ) -> PyResult<(u64, Bound<'py, PyDict>)> {
        let id = ParamId::from_index(param);
        let (steps, tensors) = self.with(py, |optimizer| {
            optimizer.sync()?;
            let state = &optimizer.param(id)?.state;
            let tensors = kinds(state).map(|kind| Ok((kind, optimizer.param_state(id, kind)?)));
            Ok((
                state.step,
                tensors.collect::<Result<StateTensors, Error>>()?,
            ))
        })?;
        Ok((steps, to_torch(py, tensors, |shape| &shape[1..])?))
    }

    /// Replaces an unpaired parameter's step counter and all of its state tensors.
    fn set_param_state(
        &self,
        py: Python<'_>,
        param: usize,
        steps: u64,
        tensors: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let id = ParamId::from_index(param);
        let (subject, layout) = self.with(py, |optimizer| {
            let slot = optimizer.param(id)?;
            Ok((slot.spec.subject(), layout(&slot.state)))
        })?;
        let tensors = from_torch(py, &subject, &layout, tensors)?;
        self.with(py, |optimizer| {
            for (kind, data) in &tensors {
                optimizer.set_param_state(id, *kind, data)?;
            }
            optimizer.set_param_steps(id, steps)
        })
    }

    /// What the last step did to an adapter, by the names of core's `AdapterReport`.
    fn adapter_report<'py>(&self, py: Python<'py>, adapter: usize) -> PyResult<Bound<'py, PyDict>> {
        let report = self.with(py, |optimizer| {
            optimizer.sync()?;
            optimizer.report(AdapterId::from_index(adapter)).copied()
        })?;
        let dict = PyDict::new(py);
        dict.set_item("step", report.step)?;
        for (name, values) in [
            ("grad_norm", report.grad_norm),
            ("update_norm", report.update_norm),
            ("relative_update", report.relative_update),
        ] {
            dict.set_item(name, PyList::new(py, [values.a, values.b])?)?;
        }
        dict.set_item("equivalent_norm", report.equivalent_norm)?;
        dict.set_item("clip", report.clip)?;
        Ok(dict)
    }
}

impl CompiledBackend {
    /// Runs `work` on the optimizer, away from the interpreter.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Optimizer) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        py.detach(|| work(&mut self.lock())).map_err(from_core)
    }

    /// The optimizer. A step that panicked has changed nothing that a later one relies on.
    fn lock(&self) -> MutexGuard<'_, Optimizer> {
        self.optimizer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn adapter_name(&self, py: Python<'_>, index: usize) -> String {
        let id = AdapterId::from_index(index);
        self.with(py, |optimizer| Ok(optimizer.adapter(id)?.spec.subject()))
            .unwrap_or_else(|_| format!("adapter number {index}"))
    }

    fn param_name(&self, py: Python<'_>, index: usize) -> String {
        let id = ParamId::from_index(index);
        self.with(py, |optimizer| Ok(optimizer.param(id)?.spec.subject()))
            .unwrap_or_else(|_| format!("parameter number {index}"))
    }

    fn read_adapters(
        &self,
        py: Python<'_>,
        torch: &Torch,
        adapters: &[AdapterTensors<'_>],
    ) -> PyResult<Vec<(AdapterId, [RawTensor; 4])>> {
        let read = |(index, a, b, grad_a, grad_b): &AdapterTensors<'_>| {
            let name = |tensor| move || format!("{}: {tensor}", self.adapter_name(py, *index));
            let [a_name, b_name] = [name("A"), name("B")];
            let tensors = [
                torch.read(a, &a_name)?,
                torch.read(b, &b_name)?,
                torch.read(grad_a, &name("grad A"))?,
                torch.read(grad_b, &name("grad B"))?,
            ];
            tensors[0].check_distinct(&a_name)?;
            tensors[1].check_distinct(&b_name)?;
            Ok((AdapterId::from_index(*index), tensors))
        };
        adapters.iter().map(read).collect()
    }

    fn read_params(
        &self,
        py: Python<'_>,
        torch: &Torch,
        params: &[ParamTensors<'_>],
    ) -> PyResult<Vec<(ParamId, [RawTensor; 2])>> {
        let read = |(index, value, grad): &ParamTensors<'_>| {
            let name = |tensor| move || format!("{}: {tensor}", self.param_name(py, *index));
            let tensors = [
                torch.read(value, &name("value"))?,
                torch.read(grad, &name("grad"))?,
            ];
            tensors[0].check_distinct(&name("value"))?;
            Ok((ParamId::from_index(*index), tensors))
        };
        params.iter().map(read).collect()
    }
}

/// Core's configuration from JSON, validated.
pub fn parse_config(text: &str) -> PyResult<Config> {
    let config: Config =
        serde_json::from_str(text).map_err(|error| exception(error.to_string()))?;
    config.validate().map_err(from_core)?;
    Ok(config)
}

fn make(name: &str, device: usize, threads: &Arc<AtomicUsize>) -> PyResult<Box<dyn Backend>> {
    let backend: Result<Box<dyn Backend>, Error> = match name {
        cpu::NAME => TorchCpu::new(threads.clone()).map(|made| Box::new(made) as _),
        cuda::NAME => CudaBackend::new(device).map(|made| Box::new(made) as _),
        reference::NAME => Ok(Box::new(ReferenceBackend::new())),
        _ => {
            let names = crate::backends().join(", ");
            return Err(exception(format!(
                "there is no backend `{name}`: use one of {names}"
            )));
        }
    };
    backend.map_err(from_core)
}

/// # Safety
/// As for [`RawTensor::view_mut`].
unsafe fn adapter_views<'a>(adapters: &[(AdapterId, [RawTensor; 4])]) -> Vec<AdapterIo<'a>> {
    let views = |(id, [a, b, grad_a, grad_b]): &(AdapterId, [RawTensor; 4])| {
        // SAFETY: the caller's.
        unsafe {
            AdapterIo::new(
                *id,
                a.view_mut(),
                b.view_mut(),
                grad_a.view(),
                grad_b.view(),
            )
        }
    };
    adapters.iter().map(views).collect()
}

/// # Safety
/// As for [`RawTensor::view_mut`].
unsafe fn param_views<'a>(params: &[(ParamId, [RawTensor; 2])]) -> Vec<ParamIo<'a>> {
    let views = |(id, [value, grad]): &(ParamId, [RawTensor; 2])| {
        // SAFETY: the caller's.
        unsafe { ParamIo::new(*id, value.view_mut(), grad.view()) }
    };
    params.iter().map(views).collect()
}

fn step_report<'py>(py: Python<'py>, report: &StepReport) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("lr_factor", report.lr_factor)?;
    dict.set_item("grad_norm", report.grad_norm)?;
    dict.set_item("grad_clip", report.grad_clip)?;
    let skipped = match &report.skipped {
        None => None,
        Some(skipped) => {
            let why = PyDict::new(py);
            why.set_item("subject", &skipped.subject)?;
            why.set_item("reason", &skipped.reason)?;
            Some(why)
        }
    };
    dict.set_item("skipped", skipped)?;
    Ok(dict)
}

/// Kind, shape and dtype of each state tensor.
type Layout = Vec<(StateKind, [usize; 2], DType)>;

fn layout(state: &State) -> Layout {
    let tensors = state.tensors.iter();
    tensors
        .map(|(tensor, _)| (tensor.kind, tensor.shape, tensor.dtype))
        .collect()
}

fn kinds(state: &State) -> impl Iterator<Item = StateKind> {
    state.tensors.iter().map(|(tensor, _)| tensor.kind)
}

fn to_torch<'py>(
    py: Python<'py>,
    tensors: StateTensors,
    shape: impl Fn(&[usize]) -> &[usize],
) -> PyResult<Bound<'py, PyDict>> {
    let torch = Torch::get(py)?;
    let dict = PyDict::new(py);
    for (kind, data) in tensors {
        let tensor = torch.tensor(py, data.dtype, shape(&data.shape), &data.bytes)?;
        dict.set_item(kind.name(), tensor)?;
    }
    Ok(dict)
}

/// The tensors of a layout from a dict, which must hold them and no others.
fn from_torch(
    py: Python<'_>,
    subject: &str,
    layout: &Layout,
    tensors: &Bound<'_, PyDict>,
) -> PyResult<StateTensors> {
    let torch = Torch::get(py)?;
    let mut given: HashMap<String, Bound<'_, PyAny>> = tensors.extract()?;
    let mut found = Vec::new();
    for &(kind, shape, dtype) in layout {
        let name = kind.name();
        let tensor = given
            .remove(name)
            .ok_or_else(|| exception(format!("{subject}: the state tensor `{name}` is missing")))?;
        let tensor = tensor
            .call_method0("detach")?
            .call_method0("cpu")?
            .call_method0("contiguous")?;
        let raw = torch.read(&tensor, &|| format!("{subject}: the state tensor `{name}`"))?;
        if raw.shape() != shape || raw.dtype() != dtype || !raw.is_contiguous() {
            return Err(exception(format!(
                "{subject}: the state tensor `{name}` is {} {:?}, but {dtype} {shape:?} is needed",
                raw.dtype(),
                raw.shape(),
            )));
        }
        // SAFETY: `tensor` is alive.
        found.push((kind, TensorData::new(dtype, shape, unsafe { raw.bytes() })));
    }
    match given.keys().next() {
        None => Ok(found),
        Some(name) => Err(exception(format!(
            "{subject}: `{name}` is no state tensor of its method"
        ))),
    }
}
