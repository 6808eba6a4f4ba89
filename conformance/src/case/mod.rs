//! A recorded trajectory: where an adapter started, which gradients it saw, where it went.
//!
//! | tensor | shape | meaning |
//! |---|---|---|
//! | `A.0`, `B.0` | r x n, m x r | the factors at the start |
//! | `g.1` to `g.T` | m x n | the full gradient dL/dW of each step |
//! | `A.1`, `B.1` to `A.T`, `B.T` | as `A.0`, `B.0` | the factors after each step; all or none |
//!
//! The hyper-parameters are string metadata. These must be there: m, n, r, scale, steps, method, x,
//! damping, lr, beta1, beta2, eps and weight_decay. These may be: lr_ratio (else 1), momentum (0),
//! amsgrad and maximize (false), update_clip (none), and quirk (none).

mod metadata;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lora_pro_core::{
    AdapterSpec, Backend, Error, HostTensor, Hyper, TensorData, read_metadata, read_tensors,
};
use lora_pro_reference::ReferenceBackend;

use metadata::Metadata;
pub use metadata::Quirk;

pub use metadata::metadata;

/// The factors of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFactors {
    /// A, r x n.
    pub a: HostTensor,
    /// B, m x r.
    pub b: HostTensor,
}

/// One recorded trajectory, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Shape, rank and scale.
    pub spec: AdapterSpec,
    /// Method, X, damping and numbers.
    pub hyper: Hyper,
    /// What a backend has to imitate to follow the recording.
    pub quirk: Option<Quirk>,
    /// The factors at t = 0.
    pub start: StoredFactors,
    /// g of the steps t = 1 to T, m x n.
    pub gradients: Vec<HostTensor>,
    /// The recorded factors after the steps t = 1 to T; empty where none are recorded.
    pub expected: Vec<StoredFactors>,
    /// The metadata as it stands in the file.
    pub metadata: BTreeMap<String, String>,
}

impl Case {
    /// Reads and checks a file; the error names the file and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|error| Error::file(path, error))?;
        Self::from_bytes(&bytes).map_err(|reason| Error::file(path, reason))
    }

    /// As [`Case::read`], from a file's content.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let metadata = Metadata(read_metadata(bytes).map_err(|error| error.to_string())?);
        let (spec, hyper) = (metadata.spec()?, metadata.hyper()?);
        let (quirk, steps) = (metadata.quirk()?, metadata.steps()?);
        let mut tensors = RemainingTensors {
            all: read_tensors(bytes).map_err(|error| error.to_string())?,
            spec: &spec,
        };
        let start = tensors.pair(0)?;
        let gradients = (1..=steps)
            .map(|t| tensors.gradient(t))
            .collect::<Result<_, _>>()?;
        let recorded = (1..=steps).any(|t| tensors.has_pair(t));
        let expected = match recorded {
            true => (1..=steps)
                .map(|t| tensors.pair(t))
                .collect::<Result<_, _>>()?,
            false => Vec::new(),
        };
        tensors.all_used(steps)?;
        let metadata = metadata.0.into_iter().collect();
        Ok(Case {
            spec,
            hyper,
            quirk,
            start,
            gradients,
            expected,
            metadata,
        })
    }

    /// The backend that follows the case where it has a quirk; `None` where any backend does.
    ///
    /// # Errors
    /// A quirk that the backend of this name does not imitate, in words.
    pub fn backend_for(&self, name: &str) -> Result<Option<Box<dyn Backend>>, String> {
        match self.quirk {
            None => Ok(None),
            Some(Quirk::Bf16Square) if name == lora_pro_reference::NAME => {
                Ok(Some(Box::new(ReferenceBackend::with_bf16_square())))
            }
            Some(Quirk::Bf16Square) => Err(format!(
                "the case has the quirk `bf16_square`, which the {name} backend does not imitate"
            )),
        }
    }

    /// Number of steps T.
    pub fn steps(&self) -> usize {
        self.gradients.len()
    }
}

/// The tensors that are not yet taken.
struct RemainingTensors<'s> {
    all: BTreeMap<String, TensorData>,
    spec: &'s AdapterSpec,
}

impl RemainingTensors<'_> {
    fn has_pair(&self, t: usize) -> bool {
        ["A", "B"]
            .iter()
            .any(|factor| self.all.contains_key(&format!("{factor}.{t}")))
    }

    fn pair(&mut self, t: usize) -> Result<StoredFactors, String> {
        let (a, b) = (self.spec.a_shape(), self.spec.b_shape());
        Ok(StoredFactors {
            a: self.take(&format!("A.{t}"), a, "r x n")?,
            b: self.take(&format!("B.{t}"), b, "m x r")?,
        })
    }

    fn gradient(&mut self, t: usize) -> Result<HostTensor, String> {
        let shape = [self.spec.m, self.spec.n];
        self.take(&format!("g.{t}"), shape, "m x n")
    }

    fn take(&mut self, name: &str, shape: [usize; 2], meaning: &str) -> Result<HostTensor, String> {
        let data = self
            .all
            .remove(name)
            .ok_or_else(|| format!("tensor `{name}` is missing"))?;
        if data.shape != shape {
            let (got, [rows, cols]) = (&data.shape, shape);
            return Err(format!(
                "tensor `{name}` has shape {got:?}, but {meaning} = [{rows}, {cols}] is needed"
            ));
        }
        let tensor = HostTensor::from_bytes(data.dtype, shape, data.bytes)
            .ok_or_else(|| format!("tensor `{name}` has a wrong number of bytes"))?;
        match non_finite(&tensor) {
            Some((i, j, value)) => Err(format!(
                "tensor `{name}` at [{i}, {j}] is {value}, but every entry must be finite"
            )),
            None => Ok(tensor),
        }
    }

    /// A moment left over means that the file and its metadata do not belong together. RemainingTensors
    /// of other names do not matter.
    fn all_used(&self, steps: usize) -> Result<(), String> {
        let moment = |name: &&String| ["A.", "B.", "g."].iter().any(|kind| name.starts_with(kind));
        match self.all.keys().find(moment) {
            Some(name) => Err(format!(
                "tensor `{name}` does not belong to a case of {steps} steps"
            )),
            None => Ok(()),
        }
    }
}

/// Row, column and value of the first NaN or infinity.
fn non_finite(tensor: &HostTensor) -> Option<(usize, usize, f64)> {
    let view = tensor.view();
    let [rows, cols] = tensor.shape();
    let entries = (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j)));
    entries
        .map(|(i, j)| (i, j, view.get(i, j)))
        .find(|entry| !entry.2.is_finite())
}
