//! Results in files: each suite's as soon as it is there, so that an interrupted run goes on.

use std::fs;
use std::path::{Path, PathBuf};

use lora_pro_core::{Error, write_atomically};
use lora_pro_cuda::device::Device;
use serde::{Deserialize, Serialize};

use crate::gpu::Gpu;
use crate::result::{Outcome, SuiteResults};
use crate::suites::Suite;

/// What results are about. Those of another subject do not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The commit that the program was built from.
    pub commit: String,
    /// How much was done: `full` or `quick`.
    pub effort: String,
    /// The device's name.
    pub device: String,
    /// Where its code came from.
    pub code: String,
    /// Its properties, by name.
    pub facts: Vec<(String, String)>,
}

impl Environment {
    /// This program on a device.
    ///
    /// # Errors
    /// Where the driver does not say what the device is.
    pub fn new(device: &dyn Device, gpu: &dyn Gpu, effort: &str) -> Result<Self, Error> {
        let about = device.info();
        Ok(Environment {
            commit: crate::COMMIT.into(),
            effort: effort.into(),
            device: about.name,
            code: about.code,
            facts: gpu.facts()?,
        })
    }

    /// The device as the name of a file.
    pub fn slug(&self) -> String {
        let letters = self.device.to_lowercase();
        let words = letters.split(|c: char| !c.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        words.join("-")
    }
}

/// One suite's results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// The suite.
    pub suite: Suite,
    /// What it is about.
    pub environment: Environment,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// How long it took.
    pub seconds: f64,
    /// The worst of its checks.
    pub outcome: Outcome,
    /// What it has found.
    pub found: SuiteResults,
}

/// The folder of results.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// In a folder, which is made where it is not there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn new(folder: &Path) -> Result<Self, Error> {
        let suites = folder.join("suites");
        fs::create_dir_all(&suites).map_err(|error| Error::file(&suites, error))?;
        Ok(Store {
            folder: folder.to_path_buf(),
        })
    }

    fn path(&self, suite: Suite) -> PathBuf {
        self.folder
            .join("suites")
            .join(format!("{}.json", suite.name()))
    }

    /// What a suite has found before. A file that cannot be read is none.
    pub fn load(&self, suite: Suite, environment: &Environment) -> Option<Stored> {
        let text = fs::read_to_string(self.path(suite)).ok()?;
        let stored: Stored = serde_json::from_str(&text).ok()?;
        (stored.environment == *environment).then_some(stored)
    }

    /// Keeps what a suite has found.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, stored: &Stored) -> Result<(), Error> {
        let path = self.path(stored.suite);
        write_atomically(&path, &pretty(&path, stored)?)
    }

    /// Writes a file beside the suites' results; where it is.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
        let path = self.folder.join(name);
        write_atomically(&path, bytes)?;
        Ok(path)
    }
}

/// JSON, for a file of this name.
///
/// # Errors
/// [`Error::File`] where something is no JSON.
pub fn pretty(path: &Path, what: &impl Serialize) -> Result<Vec<u8>, Error> {
    let text = serde_json::to_string_pretty(what).map_err(|error| Error::file(path, error))?;
    Ok((text + "\n").into_bytes())
}
