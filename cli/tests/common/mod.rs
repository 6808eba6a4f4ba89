//! Runs the program and looks at what it says.
#![allow(dead_code, reason = "every test file uses a part of this")]

pub mod tiny;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a run of the program left behind.
#[derive(Debug)]
pub struct ProgramOutput {
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error, the folder's name replaced by `[DIR]` and the reason for no GPU by `[...]`.
    pub stderr: String,
}

/// The program, to be run in `folder`.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lora-pro"));
    command
        .args(arguments)
        .current_dir(folder)
        // The same on a machine with a GPU as on one without.
        .env("CUDA_VISIBLE_DEVICES", "-1")
        .stdin(Stdio::null());
    command
}

/// Runs the program in `folder`.
pub fn lora_pro(folder: &Path, arguments: &[&str]) -> ProgramOutput {
    let output = command(folder, arguments)
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes UTF-8");
    let stderr = text(output.stderr);
    ProgramOutput {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: without_why(&stderr.replace(&folder.display().to_string(), "[DIR]")),
    }
}

/// Why there is no GPU differs from machine to machine.
fn without_why(stderr: &str) -> String {
    const START: &str = "backend: cpu (";
    let line = |line: &str| match line.split_once(START) {
        Some((before, _)) => format!("{before}{START}[...])\n"),
        None => format!("{line}\n"),
    };
    stderr.lines().map(line).collect()
}

/// Asserts that the program ran to its end.
pub fn succeeds(folder: &Path, arguments: &[&str]) -> ProgramOutput {
    let outcome = lora_pro(folder, arguments);
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome:#?}");
    outcome
}

/// Standard error of a run that the program refuses with exit code 2.
pub fn refusal(folder: &Path, arguments: &[&str]) -> String {
    let outcome = lora_pro(folder, arguments);
    assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:#?}");
    assert_eq!(outcome.stdout, "", "{arguments:?}");
    outcome.stderr.trim_end().to_string()
}

/// A recorded trajectory of the project.
pub fn vector(name: &str) -> PathBuf {
    vectors().join(name)
}

/// The folder of recorded trajectories.
pub fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/vectors")
}

/// An empty folder, removed when dropped.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}
