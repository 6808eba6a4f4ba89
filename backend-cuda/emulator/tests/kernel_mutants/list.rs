//! The list of mutants, and what becomes of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use lora_pro_cuda_emulator::compile::kernels;
use lora_pro_cuda_emulator::mutants::{self, By, Mutant, Verdict};

/// Many times what the battery takes on kernels that are right.
const LIMIT: Duration = Duration::from_secs(120);

pub fn all() -> Vec<Mutant> {
    let all = mutants::load(&kernels().join("mutants.toml")).unwrap_or_else(|e| panic!("{e}"));
    mutants::check(&all, &kernels()).unwrap_or_else(|error| panic!("{error}"));
    all
}

/// Where [`table`] is kept.
pub fn written() -> PathBuf {
    kernels().join("mutants.md")
}

/// A mutant that was tried.
#[derive(Debug)]
pub struct Tried {
    mutant: Mutant,
    verdict: Verdict,
    /// The check that the battery was at.
    check: String,
}

impl Tried {
    /// One that does not compile shows nothing.
    pub fn is_caught(&self) -> bool {
        matches!(self.verdict, Verdict::Caught(_))
    }

    fn row(&self) -> String {
        let Mutant { id, file, what, .. } = &self.mutant;
        format!(
            "| `{id}` | {file} | {what} | {} | {} |",
            self.by(),
            self.check
        )
    }

    fn by(&self) -> String {
        match &self.verdict {
            Verdict::Caught(By::Status(status)) => format!("status {status}"),
            Verdict::Caught(By::Signal(signal)) => format!("signal {signal}"),
            Verdict::Caught(By::Timeout) => "timeout".into(),
            Verdict::Survived => "SURVIVED".into(),
            Verdict::DidNotCompile(_) => "DID NOT COMPILE".into(),
        }
    }
}

/// Tries mutants on all cores; in the order of the list.
pub fn try_all(mutants: &[Mutant]) -> Vec<Tried> {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (rest, tried) = (
        Mutex::new(mutants.iter().enumerate()),
        Mutex::new(Vec::new()),
    );
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, mutant)) = next(&rest) {
                    let result = try_one(mutant, scratch.path());
                    println!("{:40} {:12} {}", mutant.id, result.by(), result.check);
                    tried.lock().expect("no panic").push((at, result));
                }
            });
        }
    });
    let mut tried = tried.into_inner().expect("no panic");
    tried.sort_by_key(|(at, _)| *at);
    tried.into_iter().map(|(_, tried)| tried).collect()
}

fn next<T>(rest: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    rest.lock().expect("no panic").next()
}

fn try_one(mutant: &Mutant, scratch: &Path) -> Tried {
    let log = scratch.join(format!("{}.log", mutant.id));
    let command = |library: &Path| {
        let out = File::create(&log).expect("a log");
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["--exact", "battery", "--nocapture"]);
        command.env("LORA_PRO_EMULATOR_LIBRARY", library);
        command.stdout(out).stderr(Stdio::null());
        command
    };
    let verdict = mutants::run(mutant, &kernels(), scratch, command, LIMIT);
    let verdict = verdict.unwrap_or_else(|error| panic!("{}: {error}", mutant.id));
    // A library is large.
    let _ = fs::remove_dir_all(scratch.join(&mutant.id));
    let text = fs::read_to_string(&log).unwrap_or_default();
    let mut checks = text
        .lines()
        .filter_map(|line| line.strip_prefix(crate::battery::NEXT));
    Tried {
        mutant: mutant.clone(),
        check: checks.next_back().unwrap_or_default().into(),
        verdict,
    }
}

/// Before the rows, each of which starts with a name.
const HEAD: &str = "| mutant | file | what is wrong | caught by | check |\n|---|---|---|---|---|\n";

/// The names in a table, in its order.
pub fn names(table: &str) -> impl Iterator<Item = &str> {
    rows(table).map(|(name, _)| name)
}

fn rows(table: &str) -> impl Iterator<Item = (&str, &str)> {
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| Some((row.split('`').nth(1)?, row)))
}

/// What became of all mutants; of those that were not tried, what an older table says.
pub fn table(tried: &[Tried], older: &str) -> String {
    let older: BTreeMap<&str, &str> = rows(older).collect();
    let newer: BTreeMap<&str, String> = tried
        .iter()
        .map(|tried| (tried.mutant.id.as_str(), tried.row()))
        .collect();
    let all = all();
    let rows = all.iter().map(|Mutant { id, .. }| {
        let id = id.as_str();
        let row = newer.get(id).map(String::as_str);
        row.or_else(|| older.get(id).copied())
            .unwrap_or_else(|| panic!("`{id}` was never tried"))
    });
    let rows: Vec<&str> = rows.collect();
    let missed = ["SURVIVED", "DID NOT COMPILE"];
    let caught = rows
        .iter()
        .filter(|row| !missed.iter().any(|by| row.contains(by)));
    let caught = caught.count();
    format!(
        "# Kernels with one thing wrong\n\n\
         {caught} of {} are caught. Written by backend-cuda/emulator/tests/kernel_mutants; the check is the \
         first of its battery that failed.\n\n{HEAD}{}\n",
        rows.len(),
        rows.join("\n"),
    )
}
