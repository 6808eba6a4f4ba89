//! Kernels with one thing wrong, for tests of the tests.
//!
//! Most are made from the kernels' own text by the operators of [`generate`]: `+` for `-`, `<=` for `<`, a
//! statement left out. A list has what operators do not reach, and says which mutants change nothing:
//!
//! ```toml
//! [[mutant]]
//! file = "tile.cuh"
//! what = "a barrier of the wrong scope"
//! from = "__syncthreads();"
//! to = "__syncwarp();"
//!
//! [[equivalent]]
//! file = "tile.cuh"
//! line = "if (side.master == nullptr) return;"   # or a part of it
//! operators = ["statement"]                      # all where this is left out
//! why = "saves time only"
//! ```

mod operators;
mod tokens;

use std::fmt;
use std::fs;
use std::ops::Range;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lora_pro_core::Error;
use serde::Deserialize;

use crate::compile::{self, Checks, try_build};

/// One text in one file of the kernels, replaced by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The file's name, in the folder of the kernels.
    pub file: String,
    /// The line of the change, from 1, and the line's text.
    pub line: (usize, String),
    /// The operator that made it, or what is wrong in a few words.
    pub what: String,
    /// The bytes of the file that are replaced.
    pub bytes: Range<usize>,
    /// What stood there.
    pub from: String,
    /// What stands in their place.
    pub to: String,
}

/// What is written by hand about mutants.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    #[serde(default)]
    mutant: Vec<ByHand>,
    #[serde(default)]
    equivalent: Vec<Equivalent>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByHand {
    file: String,
    what: String,
    /// A text that is there once.
    from: String,
    to: String,
}

/// Mutants that no test can tell from the kernels.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Equivalent {
    /// The file's name.
    pub file: String,
    /// A text in the line of the change.
    pub line: String,
    /// The operators for which it holds; all where there are none.
    #[serde(default)]
    pub operators: Vec<String>,
    /// What is put in the place of something; anything where this is left out.
    pub to: Option<String>,
    /// Why nothing changes.
    pub why: String,
}

impl Equivalent {
    /// Whether it speaks of this mutant.
    #[must_use]
    pub fn covers(&self, mutant: &Mutant) -> bool {
        self.file == mutant.file
            && mutant.line.1.contains(&self.line)
            && (self.operators.is_empty() || self.operators.contains(&mutant.what))
            && self.to.as_ref().is_none_or(|to| *to == mutant.to)
    }
}

/// Reads a list.
///
/// # Errors
/// [`Error::File`] where it is not one.
pub fn load(list: &Path) -> Result<List, Error> {
    toml::from_str(&text_of(list)?).map_err(|error| Error::file(list, error))
}

impl List {
    /// Which mutants are said to change nothing.
    #[must_use]
    pub fn equivalents(&self) -> &[Equivalent] {
        &self.equivalent
    }

    /// The mutants that were written by hand.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Invalid`] where a text is not in its file exactly once.
    pub fn by_hand(&self, sources: &Path) -> Result<Vec<Mutant>, Error> {
        let find = |entry: &ByHand| {
            let text = text_of(&sources.join(&entry.file))?;
            let mut found = text.match_indices(&entry.from).map(|(at, _)| at);
            match (found.next(), found.next()) {
                (Some(at), None) if !entry.from.is_empty() => {
                    let bytes = at..at + entry.from.len();
                    Ok(Mutant::new(
                        &entry.file,
                        &text,
                        bytes,
                        &entry.what,
                        entry.to.clone(),
                    ))
                }
                _ => Err(Error::invalid(
                    &entry.file,
                    "from",
                    &entry.from,
                    "a text that is there once",
                )),
            }
        };
        self.mutant.iter().map(find).collect()
    }
}

/// What the operators make of a file of the kernels, in the order of its text.
///
/// # Errors
/// [`Error::File`].
pub fn generate(sources: &Path, file: &str) -> Result<Vec<Mutant>, Error> {
    let text = text_of(&sources.join(file))?;
    let edits = operators::edits(&text).into_iter();
    let mutants = edits.map(|edit| Mutant::new(file, &text, edit.bytes, edit.operator, edit.to));
    Ok(mutants.collect())
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MutantOutcome {
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
    /// The tests computed for too long.
    Timeout,
}

/// Copies the kernels, with the mutant's change, into a folder.
///
/// # Errors
/// [`Error::File`]; [`Error::Invalid`] where the file has changed since the mutant was made.
pub fn apply(mutant: &Mutant, sources: &Path, folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    for file in compile::files(sources)? {
        // What `files` finds has a name.
        let copy = folder.join(file.file_name().unwrap_or_default());
        fs::copy(&file, &copy).map_err(|error| Error::file(&copy, error))?;
    }
    let changed = folder.join(&mutant.file);
    fs::write(&changed, mutant.changed(sources)?).map_err(|error| Error::file(&changed, error))
}

/// Compiles a mutant in a folder and runs the tests that `command` makes for its library: they are to
/// use it by `LORA_PRO_EMULATOR_LIBRARY`. Tests that compute for longer than `limit` are ended.
///
/// # Errors
/// Those of [`apply`] and [`build`](compile::build), and [`Error::File`] where the tests cannot be
/// started.
pub fn run(
    mutant: &Mutant,
    sources: &Path,
    folder: &Path,
    mut command: impl FnMut(&Path) -> Command,
    limit: Duration,
) -> Result<MutantOutcome, Error> {
    apply(mutant, sources, folder)?;
    let library = match try_build(&compile::compiler(), folder, folder, Checks::Hasty)? {
        Ok(library) => library,
        Err(text) => return Ok(MutantOutcome::DidNotCompile(text)),
    };
    let mut tests = command(&library);
    let seconds = limit.as_secs().max(1);
    // SAFETY: between fork and exec the child makes one system call, which allocates nothing.
    unsafe { tests.pre_exec(move || limit_cpu_time(seconds)) };
    let status = tests.status();
    let status = status.map_err(|error| Error::file(tests.get_program(), error))?;
    Ok(match (status.code(), status.signal()) {
        (Some(0), _) => MutantOutcome::Survived,
        (Some(code), _) => MutantOutcome::Caught(By::Status(code)),
        (None, Some(libc::SIGXCPU)) => MutantOutcome::Caught(By::Timeout),
        (None, signal) => MutantOutcome::Caught(By::Signal(signal.unwrap_or_default())),
    })
}

/// Ends the process by a signal once it has computed for so long: a wall clock would take a busy machine
/// for a loop that does not end.
fn limit_cpu_time(seconds: u64) -> std::io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: seconds,
        rlim_max: seconds + 1,
    };
    // SAFETY: the structure lives until the call returns.
    match unsafe { libc::setrlimit(libc::RLIMIT_CPU, &limit) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

impl Mutant {
    fn new(file: &str, text: &str, bytes: Range<usize>, what: &str, to: String) -> Self {
        let start = text[..bytes.start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[start..]
            .find('\n')
            .map_or(text.len(), |len| start + len);
        let number = text[..start].matches('\n').count() + 1;
        Mutant {
            file: file.into(),
            line: (number, text[start..end].trim().into()),
            what: what.into(),
            from: text[bytes.clone()].into(),
            bytes,
            to,
        }
    }

    /// In which of `count` equal parts of all mutants it is: the same one as long as its line stays as it
    /// is.
    #[must_use]
    pub fn part_of(&self, count: u64) -> u64 {
        let Mutant {
            file,
            line: (_, line),
            what,
            from,
            to,
            ..
        } = self;
        let words = [file, line, what, from, to].into_iter();
        // FNV-1a: the same on every machine and with every compiler.
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = words.fold(0xcbf2_9ce4_8422_2325, |hash, word| {
            word.as_bytes().iter().fold(hash, step)
        });
        (hash >> 16) % count
    }

    /// The whole file, with the change.
    fn changed(&self, sources: &Path) -> Result<String, Error> {
        let text = text_of(&sources.join(&self.file))?;
        if text.get(self.bytes.clone()) != Some(&self.from) {
            let expected = format!("the text of {} at byte {}", self.file, self.bytes.start);
            return Err(Error::invalid(
                &self.to_string(),
                "from",
                &self.from,
                &expected,
            ));
        }
        Ok([&text[..self.bytes.start], &self.to, &text[self.bytes.end..]].concat())
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mutant {
            file,
            line: (number, line),
            what,
            from,
            to,
            ..
        } = self;
        let short = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(
            f,
            "{file}:{number} {what} `{}` to `{}` in `{line}`",
            short(from),
            short(to)
        )
    }
}

fn text_of(file: &Path) -> Result<String, Error> {
    fs::read_to_string(file).map_err(|error| Error::file(file, error))
}
