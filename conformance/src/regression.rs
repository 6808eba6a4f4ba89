//! Failures, stored as the numbers that describe the case and as the bits that follow from them:
//! they are tried first ever after.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lora_pro_core::{
    Config, DType, Error, HostTensor, Method, TensorData, encode_tensors, read_tensors,
    write_atomically,
};
use lora_pro_reference::storage::{host, matrix};
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use crate::case::metadata;
use crate::check::Check;
use crate::options;
use crate::replay::data;
use crate::sample::CaseSpec;
use crate::subject::exact;

/// One failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// The check that failed.
    pub check: String,
    /// The method that it was about.
    pub method: Method,
    /// Storage type.
    pub dtype: DType,
    /// The case, shrunk.
    pub case: CaseSpec,
    /// The subject that failed.
    pub subject: String,
    /// What was found, in words.
    pub found: String,
    /// Version of the kit that found it.
    pub kit: String,
}

impl Regression {
    /// Its file's name without an extension: the same failure always gets the same one.
    pub fn name(&self) -> String {
        let key = format!("{:?}", self.case);
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let Regression {
            check,
            dtype,
            method,
            ..
        } = self;
        format!("{check}-{method}-{dtype}-{:08x}", hash >> 32)
    }

    /// Writes `NAME.json` and `NAME.safetensors` into a folder; returns the path of the first.
    ///
    /// # Errors
    /// [`Error::File`] where that cannot be done.
    pub fn save(&self, folder: &Path) -> Result<PathBuf, Error> {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        let path = folder.join(self.name() + ".json");
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::file(&path, error))?;
        let bits = path.with_extension("safetensors");
        let bytes = encode_tensors(&self.bits(), self.metadata().into_iter().collect())
            .map_err(|reason| Error::file(&bits, reason))?;
        write_atomically(&bits, &bytes)?;
        write_atomically(&path, (text + "\n").as_bytes())?;
        Ok(path)
    }

    /// Reads a failure and makes sure that its numbers still give the same bits.
    ///
    /// # Errors
    /// [`Error::File`] where there is none, it is damaged, or the bits differ.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
        let regression: Regression =
            serde_json::from_str(&text).map_err(|error| Error::file(path, error))?;
        let bits = path.with_extension("safetensors");
        let bytes = std::fs::read(&bits).map_err(|error| Error::file(&bits, error))?;
        let stored = read_tensors(&bytes).map_err(|reason| Error::file(&bits, reason))?;
        match same(&stored, &regression.bits()) {
            true => Ok(regression),
            false => Err(Error::file(
                &bits,
                "these are not the numbers that the case gives now: another version of the kit \
                 made them",
            )),
        }
    }

    /// All failures of a folder, by name; none where there is no folder.
    ///
    /// # Errors
    /// As [`Regression::load`].
    pub fn load_all(folder: &Path) -> Result<Vec<Self>, Error> {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Ok(vec![]);
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
        paths.sort();
        paths.iter().map(|path| Self::load(path)).collect()
    }

    /// What makes the bits a case that `lora-pro replay` follows: the hyper-parameters of the check,
    /// and what it found. Options that a case cannot prescribe stand in `config` alone.
    fn metadata(&self) -> BTreeMap<String, String> {
        let config = match self.check == Check::Differential.id() {
            true => options::sampled(&self.case, self.method).config,
            false => Config::from(exact(self.method)),
        };
        let source = format!(
            "a failure of {}, found by the kit {}",
            self.subject, self.kit
        );
        let mut all = metadata(&self.spec(), &config.hyper, &source);
        let config = serde_json::to_string(&config).unwrap_or_default();
        let about = [
            ("check", self.check.clone()),
            ("dtype", self.dtype.to_string()),
            ("found", self.found.clone()),
            ("config", config),
        ];
        all.extend(about.map(|(key, value)| (key.to_string(), value)));
        all
    }

    /// The case in the storage type that it failed in.
    fn spec(&self) -> CaseSpec {
        CaseSpec {
            dtype: self.dtype,
            ..self.case
        }
    }

    /// The factors and the gradients of all steps, as a subject gets them.
    fn bits(&self) -> BTreeMap<String, TensorData> {
        let spec = self.spec();
        let factors = spec.factors();
        let mut all = BTreeMap::from([
            ("A.0".to_string(), tensor(spec.dtype, &factors.a)),
            ("B.0".to_string(), tensor(spec.dtype, &factors.b)),
        ]);
        for t in 1..=spec.steps {
            all.insert(format!("g.{t}"), tensor(DType::F64, &spec.full_gradient(t)));
        }
        all
    }
}

/// The same tensors, but for a last digit: some processors fuse multiplication and addition.
fn same(x: &BTreeMap<String, TensorData>, y: &BTreeMap<String, TensorData>) -> bool {
    let near = |x: &TensorData, y: &TensorData| {
        let (Some(a), Some(b)) = (values(x), values(y)) else {
            return false;
        };
        let u = x.dtype.unit_roundoff();
        a.shape() == b.shape() && (&a - &b).norm() <= 64.0 * u * b.norm()
    };
    x.len() == y.len()
        && x.iter().all(|(name, x)| {
            y.get(name)
                .is_some_and(|y| x.dtype == y.dtype && near(x, y))
        })
}

fn values(data: &TensorData) -> Option<DMatrix<f64>> {
    let [rows, cols] = data.shape[..] else {
        return None;
    };
    let tensor = HostTensor::from_bytes(data.dtype, [rows, cols], data.bytes.clone())?;
    Some(matrix(&tensor.view()))
}

fn tensor(dtype: DType, values: &DMatrix<f64>) -> TensorData {
    data(&host(values, dtype))
}
