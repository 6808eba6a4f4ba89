//! The mutants, and what becomes of them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use lora_pro_cuda_emulator::compile::kernels;
use lora_pro_cuda_emulator::mutants::{self, By, Equivalent, Mutant, MutantOutcome};

/// Of a processor: many times what the battery takes on kernels that are right.
const LIMIT: Duration = Duration::from_secs(200);

/// Declarations that the host shares, what only a GPU compiles, and a list of the other files.
const WITHOUT_KERNELS: [&str; 3] = ["all.cu", "model.cuh", "platform.cuh"];

/// Every mutant, and those of a list that change nothing.
pub fn all() -> (Vec<Mutant>, Vec<Equivalent>) {
    let sources = kernels();
    let list = mutants::load(&sources.join("mutants.toml")).unwrap_or_else(|e| panic!("{e}"));
    let mut all = list
        .by_hand(&sources)
        .unwrap_or_else(|error| panic!("{error}"));
    let names = fs::read_dir(&sources).expect("the kernels are there");
    let names = names.map(|entry| {
        entry
            .expect("a file")
            .file_name()
            .into_string()
            .expect("a name")
    });
    let mut names: Vec<String> = names
        .filter(|name| name.ends_with(".cu") || name.ends_with(".cuh"))
        .filter(|name| !WITHOUT_KERNELS.contains(&name.as_str()))
        .collect();
    names.sort();
    for name in names {
        all.extend(mutants::generate(&sources, &name).unwrap_or_else(|error| panic!("{error}")));
    }
    (all, list.equivalents().to_vec())
}

/// A mutant that was tried.
pub struct Tried {
    mutant: Mutant,
    verdict: MutantOutcome,
    /// The check that the battery was at.
    check: String,
}

impl Tried {
    /// One that does not compile shows nothing, and is no kernel either.
    pub fn survived(&self) -> bool {
        self.verdict == MutantOutcome::Survived
    }

    pub fn compiles(&self) -> bool {
        !matches!(self.verdict, MutantOutcome::DidNotCompile(_))
    }

    pub fn row(&self) -> String {
        let by = match &self.verdict {
            MutantOutcome::Caught(By::Status(status)) => format!("status {status}"),
            MutantOutcome::Caught(By::Signal(signal)) => format!("signal {signal}"),
            MutantOutcome::Caught(By::Timeout) => "timeout".into(),
            MutantOutcome::Survived => "SURVIVED".into(),
            MutantOutcome::DidNotCompile(_) => "does not compile".into(),
        };
        format!("{by:16} {:40} {}", self.check, self.mutant)
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
                    let result = try_one(mutant, &scratch.path().join(at.to_string()));
                    println!("{}", result.row());
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

fn try_one(mutant: &Mutant, folder: &Path) -> Tried {
    let log = folder.join("log");
    let command = |library: &Path| {
        let out = File::create(&log).expect("a log");
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["--exact", "battery", "--nocapture"]);
        command.env("LORA_PRO_EMULATOR_LIBRARY", library);
        command.stdout(out).stderr(Stdio::null());
        command
    };
    let verdict = mutants::run(mutant, &kernels(), folder, command, LIMIT);
    let verdict = verdict.unwrap_or_else(|error| panic!("{mutant}: {error}"));
    let text = fs::read_to_string(&log).unwrap_or_default();
    // A library is large.
    let _ = fs::remove_dir_all(folder);
    let mut checks = text
        .lines()
        .filter_map(|line| line.strip_prefix(crate::battery::NEXT));
    Tried {
        mutant: mutant.clone(),
        check: checks.next_back().unwrap_or_default().into(),
        verdict,
    }
}
