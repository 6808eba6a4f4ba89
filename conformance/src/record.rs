//! What a run of the kit leaves behind: JSON lines, one for the run, one for each subject, one for
//! each cell of the matrix, one for the end. Every report is made from them.

use std::collections::BTreeMap;

use lora_pro_core::{DType, Method};
use serde::{Deserialize, Serialize};

use crate::sample::CaseSpec;
use crate::verdict::Verdict;

/// One line of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Run(RunInfo),
    /// An implementation under test.
    Subject(SubjectInfo),
    /// What one check found on one subject.
    Cell(Cell),
    /// The last line; a record without it was interrupted.
    End(End),
}

/// What was run, with which versions, on which machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of this crate.
    pub kit: String,
    /// What the laws are taken from, with its version.
    pub spec: String,
    /// Version of the recorded trajectories.
    pub vectors: String,
    /// Number of the subprocess protocol.
    pub protocol: u32,
    /// The machine, in words.
    pub machine: Machine,
    /// What all random numbers follow from.
    pub seed: u64,
    /// Random cases for each cell.
    pub cases: u32,
    /// The command line, as it can be given again.
    pub command: String,
    /// Seconds since 1970.
    pub started: u64,
}

/// Where a run took place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub arch: String,
    /// Name of the processor.
    pub cpu: String,
    /// Logical processors.
    pub threads: usize,
}

/// An implementation under test, as it describes itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubjectInfo {
    /// Its name in the matrix.
    pub name: String,
    /// Its version, as it gives it.
    pub version: String,
    /// The command that starts it; none for what is built in.
    pub command: Option<String>,
    /// What it says it is and can do.
    pub manifest: serde_json::Value,
    /// How its error grows with the condition number, as it declares.
    pub stability: Stability,
}

/// How the error of a result grows with the condition number kappa of A or B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stability {
    /// Like kappa.
    Kappa,
    /// Like kappa squared, as with Gram matrices in the storage type or coefficients applied in it.
    KappaSquared,
}

/// What one check found on one subject, in one storage type and for one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The subject's name.
    pub subject: String,
    /// The check: `law-15-balance`, `vector-003`, `differential`.
    pub check: String,
    /// The check in a few words or symbols.
    pub title: String,
    /// Storage type of A, B and their gradients.
    pub dtype: DType,
    /// The method, where the check is about one.
    pub method: Option<Method>,
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is skipped, unsupported, an error or unknown.
    pub reason: Option<String>,
    /// Whether the run fails where this cell is not fine.
    pub required: bool,
    /// Cases that were tried.
    pub cases: u32,
    /// The largest ratio met; infinite where a thing that must hold does not.
    #[serde(with = "number")]
    pub ratio: f64,
    /// The case with the largest ratio, shrunk where it fails.
    pub worst: Option<CaseSpec>,
    /// Where the failure is stored, to be replayed.
    pub replay: Option<String>,
    /// The stability that the ratios of this cell show.
    pub measured_stability: Option<Stability>,
    /// How often each branch, decade of kappa and option was met (`kappa/1e4`, `branch/B = 0`), zero
    /// for what could have been met and was not.
    pub coverage: BTreeMap<String, u32>,
    /// How long it took.
    pub seconds: f64,
}

/// How the reason of a cell begins that was not run, since the subject failed a smoke test.
pub(crate) const NOT_RUN: &str = "not run";

impl Cell {
    /// Whether it was not run, since the subject failed a smoke test.
    pub fn was_not_run(&self) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        self.verdict == Verdict::Unknown && reason.starts_with(NOT_RUN)
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// The worst verdict of all required cells.
    pub verdict: Verdict,
    /// Cells by verdict.
    pub counts: BTreeMap<Verdict, u32>,
    /// How long all of it took.
    pub seconds: f64,
}

/// JSON has no infinity and no NaN: they are written as the words `inf` and `nan`.
mod number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Number {
        Finite(f64),
        Word(String),
    }

    pub fn serialize<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        let number = match x {
            x if x.is_nan() => Number::Word("nan".into()),
            x if x.is_infinite() => Number::Word("inf".into()),
            x => Number::Finite(*x),
        };
        number.serialize(serializer)
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<f64, D::Error> {
        match Number::deserialize(deserializer)? {
            Number::Finite(x) => Ok(x),
            Number::Word(word) if word == "nan" => Ok(f64::NAN),
            Number::Word(word) if word == "inf" => Ok(f64::INFINITY),
            Number::Word(word) => Err(D::Error::custom(format!("`{word}` is no ratio"))),
        }
    }
}
