//! What is proved and measured, one file each.

use std::panic::{AssertUnwindSafe, catch_unwind};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::ctx::Ctx;
use crate::progress::SuiteProgress;
use crate::result::SuiteResults;

pub mod capture;
pub mod endurance;
pub mod sanitizer;
pub mod side_by_side;
pub mod small_cases;
pub mod tests;
pub mod timings;

/// A suite, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// The tests of the CUDA backend
    Tests,
    /// A step as a CUDA graph gives the same bits
    Capture,
    /// Thousands of steps
    Endurance,
    /// NVIDIA's compute-sanitizer on small cases
    Sanitizer,
    /// How long a step takes
    Timings,
    /// How long torch takes on the same device
    SideBySide,
    /// Every kernel once, on small cases: what the sanitizer runs
    SmallCases,
}

impl Suite {
    /// What runs where nothing is asked for.
    pub const ALL: [Suite; 6] = [
        Suite::Tests,
        Suite::Capture,
        Suite::Endurance,
        Suite::Sanitizer,
        Suite::Timings,
        Suite::SideBySide,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Tests => "tests",
            Suite::Capture => "capture",
            Suite::Endurance => "endurance",
            Suite::Sanitizer => "sanitizer",
            Suite::Timings => "timings",
            Suite::SideBySide => "side-by-side",
            Suite::SmallCases => small_cases::NAME,
        }
    }

    /// Runs it. What goes wrong in it is a check that failed.
    pub fn run(self, ctx: &Ctx, progress: &SuiteProgress) -> SuiteResults {
        let run = match self {
            Suite::Tests => tests::run,
            Suite::Capture => capture::run,
            Suite::Endurance => endurance::run,
            Suite::Sanitizer => sanitizer::run,
            Suite::Timings => timings::run,
            Suite::SideBySide => side_by_side::run,
            Suite::SmallCases => small_cases::run,
        };
        let mut found = SuiteResults::default();
        // What a suite has found before it gave up is worth keeping.
        let work = AssertUnwindSafe(|| run(ctx, progress, &mut found));
        let problem = match catch_unwind(work) {
            Ok(Ok(())) => return found,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => words(panic.as_ref()),
        };
        found.check("the suite comes to its end", false, problem);
        found
    }
}

/// What a panic says.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
    text.unwrap_or_else(|| "a panic".into())
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line_and_of_files() {
        for suite in Suite::value_variants() {
            let value = suite.to_possible_value().unwrap();
            assert_eq!(value.get_name(), suite.name());
            assert_eq!(serde_json::to_value(suite).unwrap(), suite.name());
        }
    }
}
