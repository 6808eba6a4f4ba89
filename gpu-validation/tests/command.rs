//! The command where there is no GPU, and how it is used.

use std::process::{Command, Output};

use lora_pro_cuda::Driver;

fn command(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lora-pro-gpu-validation"));
    command.args(arguments).output().unwrap()
}

#[test]
fn without_a_gpu_it_says_so() {
    let Err(error) = Driver::count() else {
        println!("skipped: there is a GPU");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = command(&["--out", &out.display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, format!("error: {error}\n"));
    assert!(output.stdout.is_empty() && !out.exists());
}

#[test]
fn bad_usage_is_2() {
    for arguments in [
        &["--only", "everything"][..],
        &["--device", "-1"],
        &["timings"],
    ] {
        let output = command(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn help_teaches() {
    let output = command(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}
