//! What a run found out: for people by way of the command, for programs as JSON.

use lora_pro_core::Manifest;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::machine::Machine;
use crate::rows::Measure;
use crate::size::Size;
use crate::stats::Samples;
use crate::verdict::GoalVerdict;

/// Raised where a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Everything about a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this format, [`SCHEMA`].
    pub schema: u32,
    /// Version of the benchmark.
    pub version: String,
    /// The machine.
    pub machine: Machine,
    /// The backend that was measured.
    pub backend: Manifest,
    /// Full size, or quick.
    pub size: Size,
    /// Threads of rows that do not say otherwise.
    pub threads: usize,
    /// Seconds that each row had for its rounds.
    pub seconds_per_row: f64,
    /// The rows, in their order.
    pub rows: Vec<RowReport>,
}

impl Report {
    /// The names of rows whose answer was wrong.
    pub fn wrong(&self) -> Vec<&str> {
        let wrong = |row: &&RowReport| matches!(row.outcome, RowOutcome::Wrong { .. });
        self.rows
            .iter()
            .filter(wrong)
            .map(|row| row.id.as_str())
            .collect()
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowReport {
    /// Its name.
    pub id: String,
    /// In words.
    pub what: String,
    /// What was measured.
    pub measure: Measure,
    /// Threads of the work.
    pub threads: usize,
    /// What came of it.
    pub outcome: RowOutcome,
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RowOutcome {
    /// The answer was right, and was measured.
    Measured(Measured),
    /// The answer was wrong, and was not measured.
    Wrong {
        /// What is wrong.
        reason: String,
    },
    /// It cannot be measured here.
    NotAvailable {
        /// Why.
        reason: String,
    },
}

/// The numbers of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Distance from the reference.
    pub check: Check,
    /// Seconds or bytes ([`Measure::is_time`]).
    pub value: Samples,
    /// Bytes that a step must move, reads and writes.
    pub traffic: u64,
    /// Operations that a step needs.
    pub operations: u64,
    /// The part of the machine that others used meanwhile; `null` where the system does not tell.
    pub others: Option<f64>,
    /// The goals.
    pub goals: Vec<GoalReport>,
}

/// One goal of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoalReport {
    /// The limits; all but the largest are only for information.
    pub limits: Vec<LimitReport>,
    /// Index of the largest limit.
    pub largest: usize,
    /// The measured value over the floor of the largest limit, round by round.
    pub ratio: Samples,
    /// Whether that ratio is within the limit.
    pub verdict: GoalVerdict,
}

/// One limit of a goal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitReport {
    /// The floor in words.
    pub floor: String,
    /// The value may be so many times the floor.
    pub times: f64,
    /// The floor, in seconds or bytes as the value.
    pub value: Samples,
}
