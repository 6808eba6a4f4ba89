//! The commit that the program is built from, for its results.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rustc-env=VALIDATED_COMMIT={}", commit());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commit, with a mark where files have been changed since; `LORA_PRO_COMMIT` where it is
/// known; `unknown` without git.
fn commit() -> String {
    println!("cargo:rerun-if-env-changed=LORA_PRO_COMMIT");
    if let Ok(commit) = env::var("LORA_PRO_COMMIT") {
        return commit;
    }
    // A commit moves the log, a change moves a source.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={}", root().join(log).display());
    }
    for sources in [
        "core",
        "reference",
        "conformance",
        "bench-suite",
        "backend-cuda",
    ] {
        println!("cargo:rerun-if-changed={}", root().join(sources).display());
    }
    let described = git(&[
        "describe",
        "--always",
        "--dirty=+changes",
        "--abbrev=40",
        "--exclude=*",
    ]);
    described.unwrap_or_else(|| "unknown".into())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .current_dir(root())
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}
