//! Optimizer state to and from a [`TensorFile`]: everything that continuing to the last bit needs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{AdapterSpec, Backend, Config, Error, Optimizer, ParamSpec, TensorData, TensorFile};

/// Version of the layout below. A file of another version is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Where the header stands in the file's document.
const KEY: &str = "optimizer";

/// The document's part that describes the optimizer.
#[derive(Serialize, Deserialize)]
struct Header {
    format_version: u32,
    config: Config,
    steps: u64,
    adapters: Vec<Counted<AdapterSpec>>,
    params: Vec<Counted<ParamSpec>>,
}

/// A spec and its step counter.
#[derive(Serialize, Deserialize)]
struct Counted<T> {
    spec: T,
    step: u64,
}

impl Optimizer {
    /// Adds configuration, counters and all state tensors to a file.
    ///
    /// Tensors are called `state.<adapter>.<tensor>`; the document gets the key `optimizer`.
    pub fn save_to(&mut self, file: &mut TensorFile) -> Result<(), Error> {
        self.sync()?;
        let mut tensors = Vec::new();
        for (name, state) in self.states() {
            for (tensor, buffer) in &state.tensors {
                let data = TensorData {
                    dtype: tensor.dtype,
                    shape: tensor.shape.to_vec(),
                    bytes: self.backend().download(tensor, buffer)?,
                };
                tensors.push((key(name, tensor.name), data));
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
        backend: Box<dyn Backend>,
        file: &TensorFile,
        path: &std::path::Path,
    ) -> Result<Self, Error> {
        let header = read_header(&file.document).map_err(|reason| Error::file(path, reason))?;
        let mut optimizer = Optimizer::new(backend, header.config)?;
        optimizer.set_steps(header.steps);
        let mut steps = Vec::new();
        for Counted { spec, step } in header.adapters {
            optimizer.add_adapter(spec)?;
            steps.push(step);
        }
        for Counted { spec, step } in header.params {
            optimizer.add_param(spec)?;
            steps.push(step);
        }
        optimizer.fill(file, &steps).map_err(|error| match error {
            Fill::Missing(reason) => Error::file(path, reason),
            Fill::Backend(error) => error,
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
            adapters: adapters
                .map(|slot| Counted {
                    spec: slot.spec.clone(),
                    step: slot.state.step,
                })
                .collect(),
            params: params
                .map(|slot| Counted {
                    spec: slot.spec.clone(),
                    step: slot.state.step,
                })
                .collect(),
        }
    }

    /// Fills the freshly allocated states, in the order of `steps`.
    fn fill(&mut self, file: &TensorFile, steps: &[u64]) -> Result<(), Fill> {
        let (backend, states) = self.states_mut();
        for ((name, state), step) in states.zip(steps) {
            state.step = *step;
            for (tensor, buffer) in &mut state.tensors {
                let key = key(name, tensor.name);
                let data = file.tensors.get(&key);
                let data =
                    data.ok_or_else(|| Fill::Missing(format!("tensor `{key}` is missing")))?;
                if data.dtype != tensor.dtype || data.shape != tensor.shape {
                    let reason = format!(
                        "tensor `{key}` is {} {:?}, but {} {:?} is needed",
                        data.dtype, data.shape, tensor.dtype, tensor.shape
                    );
                    return Err(Fill::Missing(reason));
                }
                backend
                    .upload(tensor, buffer, &data.bytes)
                    .map_err(Fill::Backend)?;
            }
        }
        Ok(())
    }
}

enum Fill {
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
