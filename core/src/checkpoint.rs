//! Optimizer state to and from a [`TensorFile`]: everything that continuing to the last bit needs.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::adapter::{AdapterSpec, ParamSpec};
use crate::backend::{Backend, StateTensor};
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
        let mut optimizer = Optimizer::new(backend, header.config.clone())?;
        for saved in &header.adapters {
            optimizer.add_adapter(saved.spec.clone())?;
        }
        for saved in &header.params {
            optimizer.add_param(saved.spec.clone())?;
        }
        optimizer.fill(header, file, path)?;
        Ok(optimizer)
    }

    /// Replaces configuration, counters and state by those that [`Optimizer::save`] saved of an
    /// optimizer with the same adapters and parameters. After an error about the file nothing has
    /// changed.
    pub fn restore(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        self.restore_from(&TensorFile::load(path)?, path)
    }

    /// As [`Optimizer::restore`], from what [`Optimizer::save_to`] saved; `path` is only for error
    /// messages.
    pub fn restore_from(&mut self, file: &TensorFile, path: &Path) -> Result<(), Error> {
        let header = read_header(&file.document).map_err(|reason| Error::file(path, reason))?;
        let adapters = header.adapters.iter().map(|saved| &saved.spec);
        let params = header.params.iter().map(|saved| &saved.spec);
        let same = adapters.eq(self.adapters().iter().map(|slot| &slot.spec))
            && params.eq(self.params().iter().map(|slot| &slot.spec));
        if !same {
            let reason = "its adapters and parameters do not fit this optimizer";
            return Err(Error::file(path, reason));
        }
        self.fill(header, file, path)
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

    /// Replaces everything that `header`, which lists what is registered here, says of it. All that
    /// the file can be wrong about is checked first.
    fn fill(&mut self, header: Header, file: &TensorFile, path: &Path) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for (owner, state) in self.states() {
            for (tensor, _) in &state.tensors {
                let data = find(file, owner, tensor);
                bytes.push(data.map_err(|reason| Error::file(path, reason))?);
            }
        }
        let factors = Factors {
            lr: header.lr_factor,
            grad: header.grad_scale,
        };
        factors.validate()?;
        self.set_config(header.config)?;
        self.set_factors(factors)?;
        self.set_steps(header.steps);
        let adapters = header.adapters.iter().map(|saved| saved.step);
        let steps = adapters.chain(header.params.iter().map(|saved| saved.step));
        let mut bytes = bytes.into_iter();
        let (backend, states) = self.states_mut();
        for ((_, state), step) in states.zip(steps) {
            state.step = step;
            for ((tensor, buffer), bytes) in state.tensors.iter_mut().zip(bytes.by_ref()) {
                backend.upload(tensor, buffer, bytes)?;
            }
        }
        Ok(())
    }
}

/// The bytes of a state tensor.
fn find<'f>(file: &'f TensorFile, owner: &str, tensor: &StateTensor) -> Result<&'f [u8], String> {
    let key = key(owner, tensor.name());
    let data = file.tensors.get(&key);
    let data = data.ok_or_else(|| format!("tensor `{key}` is missing"))?;
    if data.dtype != tensor.dtype || data.shape != tensor.shape {
        return Err(format!(
            "tensor `{key}` is {} {:?}, but {} {:?} is needed",
            data.dtype, data.shape, tensor.dtype, tensor.shape
        ));
    }
    Ok(&data.bytes)
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
