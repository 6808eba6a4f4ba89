//! The runs of a comparison in a file, one line of JSON for each, so that a comparison that is
//! interrupted goes on with those that are missing.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use lora_pro_core::Error;
use serde::{Deserialize, Serialize};

use crate::comparison::RunResult;
use crate::method_spec::MethodSpec;
use crate::run::RunConfig;

/// The runs that are done, in memory and in a file.
#[derive(Debug, Default)]
pub struct RunLog {
    file: Option<(PathBuf, File)>,
    done: HashMap<String, LoggedRun>,
}

/// What is known of a run that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoggedRun {
    pub result: RunResult,
    pub seconds_per_step: f64,
    pub state_bytes: usize,
}

/// What a run is known by: everything that determines its numbers.
#[derive(Serialize)]
pub(crate) struct RunKey<'r> {
    pub method: &'r str,
    pub run: &'r RunConfig,
    pub base_crc32: u32,
    pub data_crc32: [u32; 3],
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    key: serde_json::Value,
    #[serde(flatten)]
    run: LoggedRun,
}

impl RunLog {
    /// The runs of a file, to which those to come are added; without a file there are none. A last
    /// line that was cut off by an interruption is dropped.
    ///
    /// Rejects a file whose other lines are not runs, naming the line.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let refuse = |error: std::io::Error| Error::file(path, error);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(refuse)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(refuse)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(refuse)?;
        let mut done = HashMap::new();
        for (number, line) in (1..).zip(text[..whole].lines()) {
            let Line { key, run } = serde_json::from_str(line)
                .map_err(|error| Error::file(path, format!("line {number}: {error}")))?;
            done.insert(key.to_string(), run);
        }
        let file = Some((path.to_path_buf(), file));
        Ok(RunLog { file, done })
    }

    /// The number of runs.
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// True without any run.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    pub(crate) fn find(&self, key: &RunKey<'_>) -> Option<&LoggedRun> {
        self.done.get(&key.value().ok()?.to_string())
    }

    /// Adds a run; it is in the file when this returns.
    pub(crate) fn add(&mut self, key: &RunKey<'_>, run: &LoggedRun) -> Result<(), Error> {
        let key = key.value()?;
        let id = key.to_string();
        if let Some((path, file)) = &mut self.file {
            let refuse = |error: std::io::Error| Error::file(path.clone(), error);
            let line = Line {
                key,
                run: run.clone(),
            };
            let mut text = serde_json::to_string(&line).map_err(|error| refuse(error.into()))?;
            text.push('\n');
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_data())
                .map_err(refuse)?;
        }
        self.done.insert(id, run.clone());
        Ok(())
    }

    /// Adds a run, or what has become known of it since: of two lines the later counts.
    pub(crate) fn renew(&mut self, key: &RunKey<'_>, run: &LoggedRun) -> Result<(), Error> {
        match self.find(key) {
            Some(known) if known == run => Ok(()),
            _ => self.add(key, run),
        }
    }
}

impl RunKey<'_> {
    fn value(&self) -> Result<serde_json::Value, Error> {
        serde_json::to_value(self).map_err(|error| Error::backend("the run log", error))
    }
}

impl<'r> RunKey<'r> {
    pub fn new(method: &'r MethodSpec, run: &'r RunConfig, crcs: [u32; 4]) -> Self {
        let [base_crc32, train, validation, test] = crcs;
        RunKey {
            method: method.id,
            run,
            base_crc32,
            data_crc32: [train, validation, test],
        }
    }
}
