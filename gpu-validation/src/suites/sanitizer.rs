//! The small cases under NVIDIA's `compute-sanitizer`, where it is there.

use std::path::Path;
use std::process::Command;

use lora_pro_core::Error;

use super::small_cases;
use crate::ctx::Ctx;
use crate::progress::SuiteProgress;
use crate::result::{Finding, SuiteResults};

/// Its tools: accesses outside of memory, races in shared memory, barriers, memory that is read before
/// it is written.
const TOOLS: [&str; 4] = ["memcheck", "racecheck", "synccheck", "initcheck"];

/// See the module's head.
///
/// # Errors
/// Where the program cannot find itself.
pub fn run(ctx: &Ctx, progress: &SuiteProgress, found: &mut SuiteResults) -> Result<(), Error> {
    let own = std::env::current_exe().map_err(|error| Error::file("this program", error))?;
    for (k, tool) in TOOLS.into_iter().enumerate() {
        progress.set(k, TOOLS.len(), tool);
        let mut command = Command::new(&ctx.sanitizer);
        command.args(["--tool", tool]).arg(&own);
        command.args(arguments(ctx, &ctx.beside("sanitizer")?.join(tool)));
        let finding = match command.output() {
            Err(error) => {
                let sanitizer = ctx.sanitizer.display();
                Finding::skipped(tool, format!("{sanitizer}: {error}"))
            }
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                judge(
                    tool,
                    &String::from_utf8_lossy(&text),
                    output.status.success(),
                )
            }
        };
        found.findings.push(finding);
    }
    Ok(())
}

/// How the program is started under the sanitizer.
fn arguments(ctx: &Ctx, out: &Path) -> Vec<String> {
    let device = ctx.device.info().ordinal.to_string();
    let out = out.display().to_string();
    let words = [
        "--only",
        small_cases::NAME,
        "--fresh",
        "--device",
        &device,
        "--out",
        &out,
    ];
    words.map(String::from).to_vec()
}

/// By the tool's summary. Without one nothing is known, and that is not well.
fn judge(tool: &str, text: &str, success: bool) -> Finding {
    let summary = text.lines().rev().find(|line| line.contains(" SUMMARY: "));
    let Some((_, count)) = summary.and_then(|line| line.split_once(" SUMMARY: ")) else {
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        return Finding::new(
            tool,
            false,
            format!("no summary: {}", last.unwrap_or_default()),
        );
    };
    let none = count.split_whitespace().next() == Some("0");
    let cases = if success {
        ""
    } else {
        "; the small cases do not pass"
    };
    Finding::new(tool, none && success, format!("{}{cases}", count.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Outcome;

    #[test]
    fn summaries_are_read() {
        let of = |text: &str, success| judge("memcheck", text, success).outcome;
        let clean = "========= COMPUTE-SANITIZER\nall well\n========= ERROR SUMMARY: 0 errors\n";
        assert_eq!(of(clean, true), Outcome::Pass);
        assert_eq!(of(clean, false), Outcome::Fail);
        assert_eq!(
            of("========= ERROR SUMMARY: 10 errors", true),
            Outcome::Fail
        );
        let race = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)";
        assert_eq!(of(race, true), Outcome::Pass);
        assert_eq!(of(&race.replace(" 0 h", " 2 h"), true), Outcome::Fail);
        let silent = judge("racecheck", "========= Error: no such device\n\n", true);
        assert_eq!(silent.outcome, Outcome::Fail);
        assert!(
            silent.detail.contains("no such device"),
            "{}",
            silent.detail
        );
    }
}
