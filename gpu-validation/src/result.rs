//! What a suite has found.

use lora_pro_bench::stats::Samples;
use lora_pro_core::{DType, Method, MomentDType};
use serde::{Deserialize, Serialize};

/// What can be said of one check, or of all of a suite; the worst of several counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It could not be looked at here.
    Skipped,
    /// It does not hold.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// Whether it holds.
    pub outcome: Outcome,
    /// How far, how many, why not.
    pub detail: String,
}

impl Finding {
    /// What was looked at, whether it holds, and how far.
    pub fn new(what: impl Into<String>, holds: bool, detail: impl Into<String>) -> Self {
        Finding {
            what: what.into(),
            outcome: if holds { Outcome::Pass } else { Outcome::Fail },
            detail: detail.into(),
        }
    }

    /// What could not be looked at, and why.
    pub fn skipped(what: impl Into<String>, why: impl Into<String>) -> Self {
        Finding {
            what: what.into(),
            outcome: Outcome::Skipped,
            detail: why.into(),
        }
    }
}

/// How long a step of a model takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Name of the model.
    pub model: String,
    /// The method.
    pub method: Method,
    /// Storage of the full mode's moments.
    pub moments: Option<MomentDType>,
    /// Rank of every adapter.
    pub rank: usize,
    /// Storage type of A, B and their gradients.
    pub dtype: DType,
    /// Adapters.
    pub adapters: usize,
    /// Bytes that a step must move.
    pub bytes: u64,
    /// Kernels that a step launches.
    pub launches: u64,
    /// Milliseconds of a step that is launched kernel by kernel.
    pub step_ms: Option<Samples>,
    /// Milliseconds of a step that is replayed as a graph.
    pub graph_ms: Option<Samples>,
    /// Whether the device took the time.
    pub by_device: bool,
    /// Why there are no times.
    pub problem: Option<String>,
}

/// How long something else takes on the same device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Other {
    /// Its name in the results.
    pub name: String,
    /// In words.
    pub what: String,
    /// Milliseconds, for the whole model.
    pub ms: Option<Samples>,
    /// What measured times were multiplied by where only a part of the model was stepped.
    pub scaled_by: f64,
    /// Why there are no times.
    pub problem: Option<String>,
}

/// All that a suite leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SuiteResults {
    /// What holds and what does not.
    pub findings: Vec<Finding>,
    /// Bytes in a millisecond that a large copy on the device moves, read and written ones counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_rate: Option<Samples>,
    /// Times of our steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timings: Vec<Timing>,
    /// Times of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
    /// What others say of themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<String>,
}

impl SuiteResults {
    /// Notes a check.
    pub fn check(&mut self, what: impl Into<String>, holds: bool, detail: impl Into<String>) {
        self.findings.push(Finding::new(what, holds, detail));
    }

    /// The worst of all checks; passed where there is none.
    pub fn outcome(&self) -> Outcome {
        let outcomes = self.findings.iter().map(|finding| finding.outcome);
        outcomes.max().unwrap_or(Outcome::Pass)
    }
}
