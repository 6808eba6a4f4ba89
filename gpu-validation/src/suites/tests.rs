//! The tests of the CUDA backend, which run on the emulator elsewhere, on this device: all laws, recorded
//! trajectories and the reference; the same bits in every order, company and layout; rejected steps.
//!
//! They are programs of their own. Cargo builds them where it and the sources are; elsewhere a folder
//! has them, and the recorded trajectories.

use std::path::Path;
use std::process::Command;

use lora_pro_core::Error;

use crate::ctx::Ctx;
use crate::progress::SuiteProgress;
use crate::result::{Finding, SuiteResults};

/// Names the device on which tests run: `test_device` of the emulator reads it.
const VARIABLE: &str = "LORA_PRO_DEVICE";

/// A program of tests.
struct Program {
    package: &'static str,
    name: &'static str,
    /// Which of its tests, as libtest takes it.
    arguments: &'static [&'static str],
}

const PROGRAMS: [Program; 8] = {
    const fn of(
        package: &'static str,
        name: &'static str,
        arguments: &'static [&'static str],
    ) -> Program {
        Program {
            package,
            name,
            arguments,
        }
    }
    const EMULATOR: &str = "lora-pro-cuda-emulator";
    const KIT: &str = "lora-pro-conformance";
    [
        of(EMULATOR, "conformance", &[]),
        // Captures that the emulator only claims: the suite `capture` makes real ones.
        of(
            EMULATOR,
            "backend",
            &["--skip", "capture", "--skip", "graph_parameters"],
        ),
        of(EMULATOR, "kernel_mutants", &["--exact", "battery"]),
        of(KIT, "differential", &["cuda"]),
        of(KIT, "moments", &["cuda"]),
        of(KIT, "refusal", &["cuda"]),
        of(KIT, "resume", &["cuda"]),
        of(KIT, "rounding", &["cuda"]),
    ]
};

/// Runs every program.
///
/// # Errors
/// None: a program that cannot be started is a check that was skipped or has failed.
pub fn run(ctx: &Ctx, progress: &SuiteProgress, found: &mut SuiteResults) -> Result<(), Error> {
    for (k, program) in PROGRAMS.iter().enumerate() {
        progress.set(k, PROGRAMS.len(), program.name);
        let what = format!("{}, tests of `{}`", program.package, program.name);
        let mut command = command(ctx.tests.as_deref(), program);
        command.env(VARIABLE, ctx.device.info().ordinal.to_string());
        found.findings.push(match command.output() {
            Err(error) => {
                let program = command.get_program().display();
                Finding::skipped(what, format!("{program}: {error}"))
            }
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                let (passed, failed) = outcomes(&text);
                let holds = output.status.success() && failed.is_empty() && passed > 0;
                found_in(what, holds, passed, &failed, &output.stderr)
            }
        });
    }
    Ok(())
}

fn command(folder: Option<&Path>, program: &Program) -> Command {
    let Some(folder) = folder else {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        cargo.args([
            "test",
            "--release",
            "-p",
            program.package,
            "--test",
            program.name,
            "--",
        ]);
        cargo.args(program.arguments);
        return cargo;
    };
    let mut command = Command::new(folder.join(program.name));
    command.args(program.arguments);
    command.env("LORA_PRO_VECTORS", folder.join("vectors"));
    command
}

/// How many tests have passed, and the names of those that have failed.
fn outcomes(text: &str) -> (usize, Vec<&str>) {
    let tests = text.lines().filter_map(|line| line.strip_prefix("test "));
    let ended: Vec<_> = tests.filter_map(|line| line.split_once(" ... ")).collect();
    let passed = ended.iter().filter(|(_, outcome)| *outcome == "ok").count();
    let failed = ended
        .iter()
        .filter(|(_, outcome)| outcome.starts_with("FAILED"));
    (passed, failed.map(|(name, _)| *name).collect())
}

fn found_in(what: String, holds: bool, passed: usize, failed: &[&str], stderr: &[u8]) -> Finding {
    let mut detail = format!("{passed} passed");
    if !failed.is_empty() {
        detail += &format!(", failed: {}", failed.join(", "));
    } else if !holds {
        let text = String::from_utf8_lossy(stderr);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        detail += &format!("; {}", last.unwrap_or("nothing was said"));
    }
    Finding::new(what, holds, detail)
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::result::Outcome;

    const TEXT: &str = "\nrunning 3 tests\ntest sets::one ... ok\ntest sets::two ... FAILED\n\
                        test sets::three ... ignored\n\ntest result: FAILED. 1 passed; 1 failed\n";

    #[test]
    fn what_libtest_prints_is_read() {
        assert_eq!(outcomes(TEXT), (1, vec!["sets::two"]));
        assert_eq!(outcomes("running 0 tests\n"), (0, vec![]));
    }

    #[test]
    fn a_failure_is_named() {
        let finding = found_in("x".into(), false, 1, &["sets::two"], b"");
        assert_eq!(finding.outcome, Outcome::Fail);
        assert_eq!(finding.detail, "1 passed, failed: sets::two");
        let silent = found_in("x".into(), false, 0, &[], b"error: no such test\n\n");
        assert_eq!(silent.detail, "0 passed; error: no such test");
    }
}
