//! What the program carries along: the commit that it was built from, and the recorded trajectories,
//! so that nothing but the program has to be copied to a machine with a GPU.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rustc-env=PROOF_COMMIT={}", commit());
    let vectors = root().join("conformance/vectors");
    println!("cargo:rerun-if-changed={}", vectors.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(out.join("vectors.rs"), embedded(&vectors)?)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commit, with a mark where files have been changed since; `LORA_PRO_COMMIT` where somebody
/// else knows it; `unknown` without git.
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

/// A list of names and contents.
fn embedded(folder: &Path) -> io::Result<String> {
    let mut files: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(|file| file.file_name());
    let mut text = String::from("[\n");
    for file in files.iter().filter(|file| file.path().is_file()) {
        let (name, path) = (file.file_name(), file.path().canonicalize()?);
        // Writing to a string does not fail.
        let _ = writeln!(text, "    ({name:?}, include_bytes!({path:?}).as_slice()),");
    }
    Ok(text + "]\n")
}
