//! Kernels with one thing wrong, for tests of the tests.
//!
//! ```toml
//! [[mutant]]
//! id = "barrier"
//! file = "block.cuh"
//! what = "a barrier"
//! from = "__syncthreads();"
//! times = 3   # how often `from` is in the file; once where this is left out
//! nth = 2     # which of them is replaced; the first where this is left out
//! to = ""
//! ```

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use lora_pro_core::Error;
use serde::Deserialize;

use crate::compile::{self, Checks, try_build};

/// One text in one file of the kernels, replaced by another.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// Its name; also that of a folder.
    pub id: String,
    /// The file's name, in the folder of the kernels.
    pub file: String,
    /// What is wrong, in a few words.
    #[serde(default)]
    pub what: String,
    /// The text as it should be.
    pub from: String,
    /// The text in its place.
    pub to: String,
    /// How often `from` is in the file.
    #[serde(default = "one")]
    pub times: usize,
    /// Which of them is replaced, counted from 1.
    #[serde(default = "one")]
    pub nth: usize,
}

fn one() -> usize {
    1
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The tests have noticed it.
    Caught(By),
    /// The tests passed.
    Survived,
    /// It is no program, says the compiler.
    DidNotCompile(String),
}

/// How a mutant was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The tests ended with this status.
    Status(i32),
    /// The tests were ended by this signal.
    Signal(i32),
    /// The tests did not end.
    Timeout,
}

/// Reads a list of mutants.
///
/// # Errors
/// [`Error::File`] where it is not one.
pub fn load(list: &Path) -> Result<Vec<Mutant>, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        #[serde(default)]
        mutant: Vec<Mutant>,
    }
    let read: List = toml::from_str(&text_of(list)?).map_err(|error| Error::file(list, error))?;
    Ok(read.mutant)
}

/// Whether every mutant of a list can be applied, and has a name of its own.
///
/// # Errors
/// [`Error::File`], [`Error::Invalid`] for the first that cannot.
pub fn check(mutants: &[Mutant], sources: &Path) -> Result<(), Error> {
    for (index, mutant) in mutants.iter().enumerate() {
        mutant.changed(sources)?;
        if mutants[..index].iter().any(|other| other.id == mutant.id) {
            return Err(mutant.invalid("id", &mutant.id, "the only one of its name"));
        }
    }
    Ok(())
}

/// Copies the kernels, with the mutant's change, into a folder of the mutant's name in `scratch`.
///
/// # Errors
/// [`Error::File`]; [`Error::Invalid`] where the text is not there as often as the mutant says.
pub fn apply(mutant: &Mutant, sources: &Path, scratch: &Path) -> Result<PathBuf, Error> {
    let folder = scratch.join(&mutant.id);
    fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
    for file in compile::files(sources)? {
        // What `files` finds has a name.
        let copy = folder.join(file.file_name().unwrap_or_default());
        fs::copy(&file, &copy).map_err(|error| Error::file(&copy, error))?;
    }
    let changed = folder.join(&mutant.file);
    fs::write(&changed, mutant.changed(sources)?).map_err(|error| Error::file(&changed, error))?;
    Ok(folder)
}

/// Compiles a mutant and runs the tests that `command` makes for its library: they are to use it by
/// `LORA_PRO_EMULATOR_LIBRARY`. Tests that take longer than `limit` are ended, with all that they have started.
///
/// # Errors
/// Those of [`apply`] and [`build`](compile::build), and [`Error::File`] where the tests cannot be
/// started.
pub fn run(
    mutant: &Mutant,
    sources: &Path,
    scratch: &Path,
    mut command: impl FnMut(&Path) -> Command,
    limit: Duration,
) -> Result<Verdict, Error> {
    let folder = apply(mutant, sources, scratch)?;
    let library = match try_build(&compile::compiler(), &folder, &folder, Checks::Hasty)? {
        Ok(library) => library,
        Err(text) => return Ok(Verdict::DidNotCompile(text)),
    };
    let mut tests = command(&library);
    // A group of their own, so that they can be ended as a whole.
    let ended = tests
        .process_group(0)
        .spawn()
        .and_then(|child| wait(child, limit));
    let ended = ended.map_err(|error| Error::file(tests.get_program(), error))?;
    Ok(match ended {
        None => Verdict::Caught(By::Timeout),
        Some(status) if status.success() => Verdict::Survived,
        Some(status) => Verdict::Caught(match status.code() {
            Some(code) => By::Status(code),
            None => By::Signal(status.signal().unwrap_or_default()),
        }),
    })
}

/// `None` where the limit was reached.
fn wait(mut child: Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let group = -libc::pid_t::try_from(child.id()).map_err(std::io::Error::other)?;
    // SAFETY: no memory is involved; the child is not waited for yet, so that the group is its own.
    unsafe { libc::kill(group, libc::SIGKILL) };
    child.wait()?;
    Ok(None)
}

impl Mutant {
    /// The whole file, with the change.
    fn changed(&self, sources: &Path) -> Result<String, Error> {
        let text = text_of(&sources.join(&self.file))?;
        let found: Vec<usize> = text.match_indices(&self.from).map(|(at, _)| at).collect();
        if self.from.is_empty() || found.len() != self.times {
            let expected = format!("{} times in {}, not {}", self.times, self.file, found.len());
            return Err(self.invalid("from", &self.from, &expected));
        }
        let nth = self.nth.checked_sub(1).and_then(|nth| found.get(nth));
        let at = *nth.ok_or_else(|| self.invalid("nth", &self.nth.to_string(), "one of them"))?;
        Ok([&text[..at], &self.to, &text[at + self.from.len()..]].concat())
    }

    fn invalid(&self, field: &'static str, value: &str, expected: &str) -> Error {
        Error::invalid(&format!("mutant `{}`", self.id), field, value, expected)
    }
}

fn text_of(file: &Path) -> Result<String, Error> {
    fs::read_to_string(file).map_err(|error| Error::file(file, error))
}
