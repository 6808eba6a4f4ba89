//! A recorded trajectory: where an adapter started, which gradients it saw, where it went.
//!
//! | tensor | shape | meaning |
//! |---|---|---|
//! | `A.0`, `B.0` | r x n, m x r | the factors at the start |
//! | `g.1` to `g.T` | m x n | the full gradient dL/dW of each step |
//! | `A.1`, `B.1` to `A.T`, `B.T` | as `A.0`, `B.0` | the factors after each step; all or none |
//!
//! The hyper-parameters are string metadata: m, n, r, scale, steps, method, x, damping, lr,
//! beta1, beta2, eps and weight_decay, and where needed quirk.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::str::FromStr;

use lora_pro_core::{
    AdapterSpec, DType, Damping, Error, HostTensor, Hyper, Method, Preset, Scale, TensorData,
    read_metadata, read_tensors,
};

/// The factors of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// A, r x n.
    pub a: HostTensor,
    /// B, m x r.
    pub b: HostTensor,
}

/// Something that the program behind a recording does, and the formulas do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// From the second step on, E is rounded to bf16 before it is squared into the second moment.
    Bf16Square,
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
    pub start: Pair,
    /// g of the steps t = 1 to T, m x n.
    pub gradients: Vec<HostTensor>,
    /// The recorded factors after the steps t = 1 to T; empty where none are recorded.
    pub expected: Vec<Pair>,
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
        let metadata = Metadata(read_metadata(bytes)?);
        let (spec, hyper) = (metadata.spec()?, metadata.hyper()?);
        let (quirk, steps) = (metadata.quirk()?, metadata.steps()?);
        let mut tensors = Tensors {
            all: read_tensors(bytes)?,
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

    /// Number of steps T.
    pub fn steps(&self) -> usize {
        self.gradients.len()
    }
}

/// Hyper-parameters that change a trajectory and are not read: better refused than ignored.
const NOT_RECORDED: [&str; 6] = [
    "lr_ratio",
    "momentum",
    "amsgrad",
    "maximize",
    "update_clip",
    "decay_base",
];

/// The string metadata, read key by key.
struct Metadata(HashMap<String, String>);

impl Metadata {
    fn text(&self, key: &str) -> Result<&str, String> {
        let text = self.0.get(key).map(String::as_str);
        text.ok_or_else(|| format!("its metadata has no `{key}`"))
    }

    fn number<T: FromStr>(&self, key: &str, kind: &str) -> Result<T, String> {
        let text = self.text(key)?;
        text.parse()
            .map_err(|_| format!("its metadata `{key}` is `{text}`, which is not {kind}"))
    }

    fn real(&self, key: &str) -> Result<f64, String> {
        self.number(key, "a number")
    }

    fn count(&self, key: &str) -> Result<usize, String> {
        self.number(key, "a whole number")
    }

    /// A value whose own parser has the words for what is wrong.
    fn named<T: FromStr<Err = String>>(&self, key: &str) -> Result<T, String> {
        self.text(key)?
            .parse()
            .map_err(|error| format!("its metadata `{key}`: {error}"))
    }

    fn spec(&self) -> Result<AdapterSpec, String> {
        let spec = AdapterSpec {
            name: "case".into(),
            m: self.count("m")?,
            n: self.count("n")?,
            r: self.count("r")?,
            scale: Scale::Explicit(self.real("scale")?),
            dtype: DType::F64,
            group: None,
        };
        spec.validate().map_err(|error| error.to_string())?;
        Ok(spec)
    }

    fn hyper(&self) -> Result<Hyper, String> {
        if let Some(key) = NOT_RECORDED.iter().find(|key| self.0.contains_key(**key)) {
            return Err(format!(
                "its metadata has `{key}`, which a case cannot prescribe"
            ));
        }
        let hyper = Hyper {
            method: self.named("method")?,
            x: self.named("x")?,
            damping: damping(self.text("damping")?)?,
            lr: self.real("lr")?,
            beta1: self.real("beta1")?,
            beta2: self.real("beta2")?,
            eps: self.real("eps")?,
            weight_decay: self.weight_decay()?,
            ..Preset::Paper.hyper()
        };
        hyper
            .validate("its metadata")
            .map_err(|error| error.to_string())?;
        Ok(hyper)
    }

    /// The recordings of SGD carry the case's number too, and do not apply it.
    fn weight_decay(&self) -> Result<f64, String> {
        let recorded = self.real("weight_decay")?;
        match self.named("method")? {
            Method::Sgd if recorded >= 0.0 => Ok(0.0),
            _ => Ok(recorded),
        }
    }

    fn steps(&self) -> Result<usize, String> {
        match self.count("steps")? {
            0 => Err("its metadata `steps` is 0, but it must be at least 1".into()),
            steps => Ok(steps),
        }
    }

    fn quirk(&self) -> Result<Option<Quirk>, String> {
        match self.0.get("quirk").map(String::as_str) {
            None => Ok(None),
            Some("bf16_square") => Ok(Some(Quirk::Bf16Square)),
            Some(other) => Err(format!(
                "its metadata `quirk` is `{other}`, but only `bf16_square` is known"
            )),
        }
    }
}

/// What recordings call `none` cuts eigenvalues under 1e-12 of the largest, and says so.
fn damping(text: &str) -> Result<Damping, String> {
    match text {
        "none" | "none (eigenvalues under 1e-12 of the largest cut)" => Ok(Damping::Cutoff(1e-12)),
        _ => text
            .parse()
            .map_err(|error| format!("its metadata `damping`: {error}")),
    }
}

/// The tensors that are not yet taken.
struct Tensors<'s> {
    all: BTreeMap<String, TensorData>,
    spec: &'s AdapterSpec,
}

impl Tensors<'_> {
    fn has_pair(&self, t: usize) -> bool {
        ["A", "B"]
            .iter()
            .any(|factor| self.all.contains_key(&format!("{factor}.{t}")))
    }

    fn pair(&mut self, t: usize) -> Result<Pair, String> {
        let (a, b) = (self.spec.a_shape(), self.spec.b_shape());
        Ok(Pair {
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

    /// A moment left over means that the file and its metadata do not belong together. Tensors
    /// of other names are nobody's business.
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
