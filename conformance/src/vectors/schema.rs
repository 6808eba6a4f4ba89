//! `index.json`: what is in the folder, in words and numbers that any language reads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lora_pro_core::{Error, write_atomically};
use serde::{Deserialize, Serialize};

/// Version of the index's own layout.
pub const FORMAT: u32 = 1;

/// File name of the index.
pub const NAME: &str = "index.json";

/// What a correct f64 implementation may stray from a vector: ||x - ref||_F / ||ref||_F of A or B.
pub const TOLERANCE: f64 = 1e-10;

/// The same for what the public code recorded, whose own rounding is larger.
pub const RECORDED_TOLERANCE: f64 = 1e-8;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// [`FORMAT`].
    pub format: u32,
    /// [`super::VERSION`] of the vectors.
    pub vectors_version: String,
    /// Number of vectors.
    pub count: usize,
    /// The bug classes by name.
    pub flags: BTreeMap<String, Flag>,
    /// The vectors by number.
    pub vectors: Vec<IndexEntry>,
}

/// A class of bugs that a vector looks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flag {
    /// The kind of mistake.
    pub bug_class: String,
    /// What the vectors with this flag have in common.
    pub description: String,
    /// What users of an implementation with the bug meet.
    pub effect: String,
}

/// One vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Its number, never used again for something else.
    pub id: u32,
    /// Its file, from the folder of the index.
    pub file: String,
    /// What it is for.
    pub comment: String,
    /// The bug classes that it looks for.
    pub flags: Vec<String>,
    /// Where it comes from.
    pub source: String,
    /// What an implementation must do with it.
    #[serde(flatten)]
    pub expected: Expected,
}

/// What an implementation must do with a vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Expected {
    /// Follow it.
    Valid {
        /// The largest ||x - ref||_F / ||ref||_F of A or B at any step, in f64.
        tolerance: f64,
        /// How far the end moves when every input moves by one unit in the last place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sensitivity: Option<f64>,
        /// Why the tolerance is not the usual one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Refuse it with an error, and change nothing.
    Refused {
        /// When it can be known at the earliest.
        by: RejectionStage,
        /// What a good error names.
        names: String,
    },
}

/// When a case has to be refused at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionStage {
    /// On reading: shapes, hyper-parameters and entries are all there to be checked.
    Read,
    /// In a step: the numbers overflow on the way.
    Step,
}

impl Index {
    /// Reads the index of a folder.
    ///
    /// # Errors
    /// A file that is not there or says something else.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let text = fs::read_to_string(&path).map_err(|error| Error::file(&path, error))?;
        serde_json::from_str(&text).map_err(|error| Error::file(&path, error))
    }

    /// Writes the index of a folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(NAME);
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::file(&path, error))?;
        write_atomically(&path, format!("{text}\n").as_bytes())
    }

    /// The safetensors files of a folder that have no entry.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn unlisted_files(&self, folder: &Path) -> Result<Vec<String>, Error> {
        let mut found = vectors_in(folder, "")?;
        found.extend(vectors_in(folder, "refused/")?);
        found.retain(|file| self.vectors.iter().all(|entry| entry.file != *file));
        found.sort();
        Ok(found)
    }
}

/// The safetensors files of a subfolder, with its name before theirs.
fn vectors_in(folder: &Path, below: &str) -> Result<Vec<String>, Error> {
    let path = folder.join(below);
    let entries = fs::read_dir(&path).map_err(|error| Error::file(&path, error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::file(&path, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") {
            names.push(format!("{below}{name}"));
        }
    }
    Ok(names)
}
