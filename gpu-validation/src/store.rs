//! Results in files: each part's as soon as it is there, so that an interrupted run goes on.

use std::fs;
use std::path::{Path, PathBuf};

use lora_pro_core::{Error, write_atomically};
use serde::{Deserialize, Serialize};

use crate::goals::{Goal, goals};
use crate::gpu::Gpu;
use crate::parts::Part;
use crate::result::{Found, Outcome};

/// Raised where a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// What results are about. Those of another subject do not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
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

impl About {
    /// This program on a device.
    ///
    /// # Errors
    /// Where the driver does not say what the device is.
    pub fn new(gpu: &dyn Gpu, effort: &str) -> Result<Self, Error> {
        let about = gpu.about();
        Ok(About {
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

/// One part's results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// The part.
    pub part: Part,
    /// What it is about.
    pub about: About,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// How long it took.
    pub seconds: f64,
    /// The worst of its checks.
    pub outcome: Outcome,
    /// What it has found.
    pub found: Found,
}

/// All results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Version of this format, [`SCHEMA`].
    pub schema: u32,
    /// What they are about.
    pub about: About,
    /// The day of the first of them.
    pub date: String,
    /// The worst of all checks.
    pub outcome: Outcome,
    /// The parts, in their order.
    pub parts: Vec<Stored>,
    /// What the numbers should be, and what they are.
    pub goals: Vec<Goal>,
}

impl Results {
    /// Of some parts.
    pub fn of(about: About, parts: Vec<Stored>) -> Self {
        let first = parts.iter().map(|stored| stored.started).min();
        let outcome = parts.iter().map(|stored| stored.outcome).max();
        Results {
            schema: SCHEMA,
            about,
            date: lora_pro_report::format::day(first.unwrap_or(0)),
            outcome: outcome.unwrap_or(Outcome::Skipped),
            goals: goals(&parts),
            parts,
        }
    }
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
        let parts = folder.join("parts");
        fs::create_dir_all(&parts).map_err(|error| Error::file(&parts, error))?;
        Ok(Store {
            folder: folder.to_path_buf(),
        })
    }

    fn path(&self, part: Part) -> PathBuf {
        self.folder
            .join("parts")
            .join(format!("{}.json", part.name()))
    }

    /// What a part has found before. A file that cannot be read is none.
    pub fn load(&self, part: Part, about: &About) -> Option<Stored> {
        let text = fs::read_to_string(self.path(part)).ok()?;
        let stored: Stored = serde_json::from_str(&text).ok()?;
        (stored.about == *about).then_some(stored)
    }

    /// Keeps what a part has found.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, stored: &Stored) -> Result<(), Error> {
        let path = self.path(stored.part);
        write_atomically(&path, &pretty(&path, stored)?)
    }

    /// Writes all results, and the page; where they are.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn publish(&self, results: &Results) -> Result<[PathBuf; 2], Error> {
        let json = self.folder.join("results.json");
        write_atomically(&json, &pretty(&json, results)?)?;
        let page = self.folder.join(format!("{}.md", results.about.slug()));
        write_atomically(&page, crate::report::page(results).as_bytes())?;
        Ok([json, page])
    }
}

fn pretty(path: &Path, what: &impl Serialize) -> Result<Vec<u8>, Error> {
    let text = serde_json::to_string_pretty(what).map_err(|error| Error::file(path, error))?;
    Ok((text + "\n").into_bytes())
}
