//! A whole run: every subject, every cell, one record.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use lora_pro_core::{DType, Error, Method};

use crate::check::Check;
use crate::record::{Cell, End, Line, Machine, NOT_RUN, RunInfo, SubjectInfo};
use crate::remote::protocol::PROTOCOL;
use crate::suite::{Implementation, Plan};
use crate::verdict::Verdict;

/// What the laws are taken from.
pub const SPEC: &str = "arXiv 2407.18242 and the laws of this kit";

/// What hears of a run as it goes on.
pub trait Listener {
    /// A line of the record; an error ends the run.
    fn line(&mut self, line: &Line) -> Result<(), Error>;

    /// `done` of `total` cells are done; `what` comes next.
    fn progress(&mut self, done: usize, total: usize, what: &str);
}

impl Plan {
    /// Runs all cells of all subjects.
    ///
    /// # Errors
    /// A skip that matches no cell, and what the listener returns.
    pub fn run(
        &self,
        implementations: &[Implementation],
        command: &str,
        listener: &mut dyn Listener,
    ) -> Result<End, Error> {
        let started = Instant::now();
        self.check_skips(implementations)?;
        listener.line(&Line::Run(self.head(command)))?;
        let total: usize = implementations
            .iter()
            .map(|each| self.cells(each).len())
            .sum();
        let mut counts = BTreeMap::new();
        let (mut verdict, mut done) = (Verdict::Pass, 0);
        for implementation in implementations {
            listener.line(&Line::Subject(implementation.info()))?;
            let mut failed = Vec::new();
            for (check, dtype, method) in self.cells(implementation) {
                let what = format!("{} {} {method} {dtype}", implementation.name, check.id());
                listener.progress(done, total, &what);
                let cell = match failed_smoke(&failed, dtype, method) {
                    Some(cell) => unknown(cell, check),
                    None => self.cell(implementation, check, dtype, method),
                };
                if matches!(check, Check::Smoke(_)) && cell.verdict != Verdict::Pass {
                    failed.push(cell.clone());
                }
                *counts.entry(cell.verdict).or_default() += 1;
                if cell.required && !cell.verdict.is_fine() {
                    verdict = verdict.max(cell.verdict);
                }
                listener.line(&Line::Cell(cell))?;
                done += 1;
            }
        }
        let end = End {
            verdict,
            counts,
            seconds: started.elapsed().as_secs_f64(),
        };
        listener.line(&Line::End(end.clone()))?;
        Ok(end)
    }

    /// A skip that matches nothing is a mistake, or about something that has been mended.
    fn check_skips(&self, implementations: &[Implementation]) -> Result<(), Error> {
        let mut used = vec![false; self.skips.len()];
        for implementation in implementations {
            for (check, dtype, method) in self.cells(implementation) {
                if let Some(k) = self.skip(&implementation.name, &check.id(), dtype, method) {
                    used[k] = true;
                }
            }
        }
        match used.iter().position(|used| !used) {
            None => Ok(()),
            Some(k) => Err(Error::invalid(
                "the skips",
                "skip",
                format!("number {} ({})", k + 1, self.skips[k].reason),
                "one that matches a cell of this run",
            )),
        }
    }

    fn head(&self, command: &str) -> RunInfo {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        RunInfo {
            kit: env!("CARGO_PKG_VERSION").into(),
            spec: SPEC.into(),
            vectors: crate::vectors::VERSION.into(),
            protocol: PROTOCOL,
            machine: machine(),
            seed: self.seed,
            cases: self.cases,
            command: command.into(),
            started: now.map_or(0, |now| now.as_secs()),
        }
    }
}

impl Implementation {
    fn info(&self) -> SubjectInfo {
        let manifest = (self.make)().manifest();
        SubjectInfo {
            name: self.name.clone(),
            version: manifest.version.clone(),
            command: self.command.clone(),
            manifest: serde_json::to_value(&manifest).unwrap_or_default(),
            stability: self.stability,
        }
    }
}

/// The smoke test that the subject failed.
fn failed_smoke(failed: &[Cell], dtype: DType, method: Method) -> Option<&Cell> {
    let same = |cell: &&Cell| cell.dtype == dtype && cell.method == Some(method);
    failed.iter().find(same)
}

/// Where the subject does not have the method, it has no law of it either; otherwise nothing is
/// known.
fn unknown(smoke: &Cell, check: Check) -> Cell {
    let (verdict, reason) = match smoke.verdict {
        Verdict::Unsupported | Verdict::Skipped => (smoke.verdict, smoke.reason.clone()),
        _ => (
            Verdict::Unknown,
            Some(format!(
                "{NOT_RUN}: the subject failed the smoke test {}",
                smoke.check
            )),
        ),
    };
    Cell {
        check: check.id(),
        title: check.title().into(),
        verdict,
        reason,
        cases: 0,
        ratio: 0.0,
        worst: None,
        replay: None,
        measured_stability: None,
        coverage: BTreeMap::new(),
        seconds: 0.0,
        ..smoke.clone()
    }
}

fn machine() -> Machine {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let cpu = model.and_then(|rest| rest.split(':').nth(1));
    Machine {
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        cpu: cpu.map_or("unknown", str::trim).into(),
        threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
    }
}
