//! Optimizer state to and from a [`TensorFile`]: everything that continuing to the last bit needs.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::adapter::{AdapterSpec, ParamSpec};
use crate::backend::Backend;
use crate::config::Config;
use crate::error::Error;
use crate::optimizer::{Factors, Optimizer};
use crate::tensor_file::{TensorData, TensorFile};

/// Version of the layout below. A file of another version is rejected.
pub const FORMAT_VERSION: u32 = 1;

/// Where the header stands in the file's document.
const KEY: &str = "optimizer";

/// The document's part that describes the optimizer.
#[derive(Serialize, Deserialize)]
struct Header {
    format_version: u32,
    config: Config,
    steps: u64,
    #[serde(default = "one")]
    grad_scale: f64,
    #[serde(default = "one")]
    lr_factor: f64,
    adapters: Vec<SavedSpec<AdapterSpec>>,
    params: Vec<SavedSpec<ParamSpec>>,
}

/// What files of before these fields existed mean.
fn one() -> f64 {
    1.0
}

/// A spec and its step counter.
#[derive(Serialize, Deserialize)]
struct SavedSpec<T> {
    spec: T,
    step: u64,
}

impl Optimizer {
    /// Writes a checkpoint: everything that continuing to the last bit needs, but the factors
    /// themselves, which are the caller's. The file that was there stays as
    /// [`crate::backup_path`].
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let mut file = TensorFile::new();
        self.save_to(&mut file)?;
        file.save(path.as_ref())
    }

    /// The optimizer that [`Optimizer::save`] saved, on any backend. Ids are handed out in the
    /// saved order; [`Optimizer::adapter_id`] finds them by name.
    pub fn load(path: impl AsRef<Path>, backend: impl Backend + 'static) -> Result<Self, Error> {
        let path = path.as_ref();
        Optimizer::load_from(backend, &TensorFile::load(path)?, path)
    }

    /// Adds configuration, counters and all state tensors to a file.
    ///
    /// Tensors are called `state.<adapter>.<tensor>`; the document gets the key `optimizer`.
    pub fn save_to(&mut self, file: &mut TensorFile) -> Result<(), Error> {
        self.sync()?;
        let mut tensors = Vec::new();
        for (name, state) in self.states() {
            for (tensor, buffer) in &state.tensors {
                let bytes = self.backend().download(tensor, buffer)?;
                let data = TensorData::new(tensor.dtype, tensor.shape, bytes);
                tensors.push((key(name, tensor.name()), data));
            }
        }
        let document = serde_json::to_value(self.header()).map_err(|error| {
            Error::invalid("the optimizer", "configuration", error, "serialisable")
        })?;
        let Some(fields) = file.document.as_object_mut() else {
            let (value, expected) = (&file.document, "an object");
            return Err(Error::invalid("the file", "document", value, expected));
        };
        fields.insert(KEY.into(), document);
        file.tensors.extend(tensors);
        Ok(())
    }

    /// The optimizer that [`Optimizer::save_to`] saved, on any backend.
    ///
    /// `path` is only for error messages. Ids are handed out in the saved order.
    pub fn load_from(
        backend: impl Backend + 'static,
        file: &TensorFile,
        path: &Path,
    ) -> Result<Self, Error> {
        let header = read_header(&file.document).map_err(|reason| Error::file(path, reason))?;
        let mut optimizer = Optimizer::new(backend, header.config)?;
        let factors = Factors {
            lr: header.lr_factor,
            grad: header.grad_scale,
        };
        optimizer.set_counters(header.steps, factors)?;
        let mut steps = Vec::new();
        for SavedSpec { spec, step } in header.adapters {
            optimizer.add_adapter(spec)?;
            steps.push(step);
        }
        for SavedSpec { spec, step } in header.params {
            optimizer.add_param(spec)?;
            steps.push(step);
        }
        optimizer.fill(file, &steps).map_err(|error| match error {
            LoadError::Missing(reason) => Error::file(path, reason),
            LoadError::Backend(error) => error,
        })?;
        Ok(optimizer)
    }

    fn header(&self) -> Header {
        let adapters = self.adapters().iter();
        let params = self.params().iter();
        Header {
            format_version: FORMAT_VERSION,
            config: self.config().clone(),
            steps: self.steps(),
            grad_scale: self.factors().grad,
            lr_factor: self.factors().lr,
            adapters: adapters
                .map(|slot| SavedSpec {
                    spec: slot.spec.clone(),
                    step: slot.state.step,
                })
                .collect(),
            params: params
                .map(|slot| SavedSpec {
                    spec: slot.spec.clone(),
                    step: slot.state.step,
                })
                .collect(),
        }
    }

    /// Fills the freshly allocated states, in the order of `steps`.
    fn fill(&mut self, file: &TensorFile, steps: &[u64]) -> Result<(), LoadError> {
        let (backend, states) = self.states_mut();
        for ((name, state), step) in states.zip(steps) {
            state.step = *step;
            for (tensor, buffer) in &mut state.tensors {
                let key = key(name, tensor.name());
                let data = file.tensors.get(&key);
                let data =
                    data.ok_or_else(|| LoadError::Missing(format!("tensor `{key}` is missing")))?;
                if data.dtype != tensor.dtype || data.shape != tensor.shape {
                    let reason = format!(
                        "tensor `{key}` is {} {:?}, but {} {:?} is needed",
                        data.dtype, data.shape, tensor.dtype, tensor.shape
                    );
                    return Err(LoadError::Missing(reason));
                }
                backend
                    .upload(tensor, buffer, &data.bytes)
                    .map_err(LoadError::Backend)?;
            }
        }
        Ok(())
    }
}

enum LoadError {
    Missing(String),
    Backend(Error),
}

fn key(owner: &str, tensor: &str) -> String {
    format!("state.{owner}.{tensor}")
}

fn read_header(document: &Value) -> Result<Header, String> {
    let header = document.get(KEY).ok_or("it holds no optimizer")?;
    let version = header["format_version"].as_u64();
    if version != Some(u64::from(FORMAT_VERSION)) {
        let found = version.map_or("none".into(), |version| version.to_string());
        return Err(format!(
            "its format version is {found}, this program reads {FORMAT_VERSION}"
        ));
    }
    Header::deserialize(header)
        .map_err(|error| format!("its optimizer header is damaged ({error})"))
}
