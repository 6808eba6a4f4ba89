//! All results, and the Markdown page of them.

use std::fmt::Write;

use lora_pro_report::format::fixed;
use lora_pro_report::table::markdown;
use serde::{Deserialize, Serialize};

use crate::goals::{Goal, share};
use crate::result::{Finding, Outcome, Timing};
use crate::store::{Environment, Stored};

/// Raised where a field changes its meaning or goes.
pub const SCHEMA: u32 = 2;

/// All results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Version of this format, [`SCHEMA`].
    pub schema: u32,
    /// What they are about.
    pub environment: Environment,
    /// The day of the first of them.
    pub date: String,
    /// The worst of all checks.
    pub outcome: Outcome,
    /// The suites, in their order.
    pub suites: Vec<Stored>,
    /// What the numbers should be, and what they are.
    pub goals: Vec<Goal>,
}

impl Results {
    /// Of some suites, with what follows from them.
    pub fn of(environment: Environment, suites: Vec<Stored>, goals: Vec<Goal>) -> Self {
        let first = suites.iter().map(|stored| stored.started).min();
        let outcome = suites.iter().map(|stored| stored.outcome).max();
        Results {
            schema: SCHEMA,
            environment,
            date: lora_pro_report::format::day(first.unwrap_or(0)),
            outcome: outcome.unwrap_or(Outcome::Skipped),
            goals,
            suites,
        }
    }
}

/// All of it: what was proved, what was measured, what it should be.
pub fn page(results: &Results) -> String {
    let sections = [
        head(results),
        suites(results),
        bad(results),
        goals(results),
        timings(results),
        others(results),
    ];
    let some = sections.into_iter().filter(|section| !section.is_empty());
    some.collect::<Vec<_>>().join("\n")
}

fn head(results: &Results) -> String {
    let environment = &results.environment;
    let mut text = format!("# {}\n\n", environment.device);
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "Written by `lora-pro-gpu-validation` on {}, commit {}, effort {}.\n",
        results.date, environment.commit, environment.effort
    );
    let facts = environment.facts.iter();
    text += &markdown(
        &["property", "value"],
        facts.map(|(name, value)| vec![name.clone(), value.clone()]),
    );
    text
}

fn suites(results: &Results) -> String {
    let count = |stored: &Stored, outcome| {
        let findings = stored.found.findings.iter();
        findings
            .filter(|x| x.outcome == outcome)
            .count()
            .to_string()
    };
    let rows = results.suites.iter().map(|stored| {
        vec![
            stored.suite.name().to_string(),
            word(stored.outcome).to_string(),
            count(stored, Outcome::Pass),
            count(stored, Outcome::Skipped),
            count(stored, Outcome::Fail),
            format!("{:.0}", stored.seconds),
        ]
    });
    let heads = ["suite", "outcome", "passed", "skipped", "failed", "seconds"];
    format!("## What was proved\n\n{}", markdown(&heads, rows))
}

/// The name of an outcome.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Skipped => "skipped",
        Outcome::Fail => "**fail**",
    }
}

fn bad(results: &Results) -> String {
    let mut text = String::new();
    for stored in &results.suites {
        let bad = |finding: &&Finding| finding.outcome != Outcome::Pass;
        for finding in stored.found.findings.iter().filter(bad) {
            let detail = finding.detail.replace('\n', " ");
            let (suite, outcome) = (stored.suite.name(), word(finding.outcome));
            // As above.
            let _ = writeln!(text, "- {outcome}: {suite}: {}: {detail}", finding.what);
        }
    }
    match text.is_empty() {
        true => text,
        false => format!("## What did not pass\n\n{text}"),
    }
}

/// A number with its unit.
fn with_unit(x: Option<f64>, unit: &str) -> String {
    match (x, unit) {
        (None, _) => "-".into(),
        (Some(x), "%") => format!("{x:.0} %"),
        (Some(x), _) => format!("{} {unit}", fixed(x)),
    }
}

/// Heads and cells of the goals: also for the terminal.
pub fn goal_row(goal: &Goal) -> [String; 5] {
    let sign = if goal.at_least { "≥" } else { "≤" };
    let met = match goal.met() {
        None => "not measured",
        Some(true) => "pass",
        Some(false) => "miss",
    };
    [
        goal.what.clone(),
        with_unit(goal.measured, &goal.unit),
        with_unit(goal.as_graph, &goal.unit),
        format!("{sign} {} {}", goal.limit, goal.unit),
        met.into(),
    ]
}

fn goals(results: &Results) -> String {
    let rows = results.goals.iter().map(|goal| goal_row(goal).to_vec());
    let heads = ["goal", "measured", "as a graph", "should be", ""];
    format!(
        "## Goals\n\nThey are for an H100 and for full effort.\n\n{}",
        markdown(&heads, rows)
    )
}

fn timings(results: &Results) -> String {
    let Some(found) = results
        .suites
        .iter()
        .map(|x| &x.found)
        .find(|x| !x.timings.is_empty())
    else {
        return String::new();
    };
    let rate = found.copy_rate.as_ref().map(|rate| rate.median);
    let rows = found.timings.iter().map(|timing| row(timing, rate));
    let heads = [
        "model",
        "method",
        "r",
        "A and B",
        "launches",
        "MB",
        "step ms",
        "quartiles",
        "as a graph",
        "share of copies",
    ];
    let copies = rate.map_or("-".into(), |rate| format!("{:.0} GB/s", rate / 1e6));
    format!(
        "## Times\n\nMilliseconds by the device's clock, medians. MB is what a step must read and \
         write; the last column compares it with copies on the device ({copies}).\n\n{}",
        markdown(&heads, rows)
    )
}

fn row(timing: &Timing, rate: Option<f64>) -> Vec<String> {
    let moments = timing.moments.map(|moments| format!(", {moments} moments"));
    let mut cells = vec![
        timing.model.clone(),
        format!("{}{}", timing.method, moments.unwrap_or_default()),
        timing.rank.to_string(),
        timing.dtype.to_string(),
        timing.launches.to_string(),
        format!("{:.0}", timing.bytes as f64 / 1e6),
    ];
    let Some(step) = &timing.step_ms else {
        let problem = timing.problem.clone().unwrap_or_default();
        cells.extend([problem, String::new(), String::new(), String::new()]);
        return cells;
    };
    let host = if timing.by_device {
        ""
    } else {
        " (host's clock)"
    };
    let graph = timing.graph_ms.as_ref();
    cells.extend([
        format!("{}{host}", fixed(step.median)),
        step.quartiles.map(fixed).join(" to "),
        graph.map_or("-".into(), |ms| fixed(ms.median)),
        with_unit(
            rate.and_then(|rate| share(timing.bytes, &timing.step_ms, rate)),
            "%",
        ),
    ]);
    cells
}

fn others(results: &Results) -> String {
    let Some(found) = results
        .suites
        .iter()
        .map(|x| &x.found)
        .find(|x| !x.others.is_empty())
    else {
        return String::new();
    };
    let rows = found.others.iter().map(|other| {
        let ms = other.ms.as_ref();
        let problem = || other.problem.clone().unwrap_or("-".into());
        vec![
            other.what.clone(),
            ms.map_or_else(problem, |ms| fixed(ms.median)),
            ms.map_or("-".into(), |ms| ms.quartiles.map(fixed).join(" to ")),
            match other.scaled_by {
                1.0 => String::new(),
                factor => format!("a part of it, times {factor:.1}"),
            },
        ]
    });
    let versions = found.versions.as_deref().unwrap_or("unknown versions");
    format!(
        "## Others on the same device\n\n{versions}; r = 8, f32, the same 224 shapes.\n\n{}",
        markdown(&["what", "ms", "quartiles", ""], rows)
    )
}
