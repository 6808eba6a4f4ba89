//! How the program is used and misused: help, exit codes, messages.

mod common;

use std::fs;
use std::process::Stdio;

use common::{command, folder, lora_pro, refusal, succeeds, vector};
use insta::assert_snapshot;

#[test]
fn help_teaches_methods_and_exit_codes() {
    let folder = folder();
    let help = succeeds(folder.path(), &["--help"]).stdout;
    for word in [
        "Exit codes",
        "lora-pro",
        "rslora",
        "factored",
        "efficient",
        "Examples",
    ] {
        assert!(help.contains(word), "{word}");
    }
    for name in [
        "compare", "train", "predict", "merge", "gap", "replay", "bench",
    ] {
        let help = succeeds(folder.path(), &[name, "--help"]).stdout;
        assert!(help.contains("Examples:"), "{name}");
    }
}

#[test]
fn info_names_versions_and_backends() {
    let said = succeeds(folder().path(), &["info"]).stdout;
    for word in [
        env!("CARGO_PKG_VERSION"),
        "threads:",
        "SIMD detected:",
        "backend by default: cpu",
        "backend cpu:",
        "backend reference:",
        "roundings:",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn an_unknown_backend_is_named_with_the_known_ones() {
    let folder = folder();
    let known = "error: there is no backend `gpu`: use one of auto cuda cpu reference";
    for arguments in [
        &["compare", "--backend", "gpu"][..],
        &["train", "--backend", "gpu", "--out", "run"],
        &["gap", "--backend", "gpu"],
        &["replay", "case.safetensors", "--backend", "gpu"],
    ] {
        assert_eq!(refusal(folder.path(), arguments), known);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn values_out_of_range_are_refused_before_anything_is_written() {
    let folder = folder();
    let train = |option: &str, value: &str| {
        let option = format!("{option}={value}");
        let arguments = [
            "train",
            "--backend=reference",
            "--pretrain-steps=1",
            "--out=run",
        ];
        refusal(folder.path(), &[&arguments[..], &[&option]].concat())
    };
    assert_snapshot!(train("--lr", "-1"), @"error: the optimizer: lr is -1, but it must be finite and at least 0");
    assert_snapshot!(train("--lr", "NaN"), @r"
    error: invalid value 'NaN' for '--lr <LR>': it is not a finite number

    For more information, try '--help'.
    ");
    assert_snapshot!(train("--rank", "0"), @"error: adapter `layers.0`: r is 0, but it must be at least 1");
    assert_snapshot!(train("--rank", "65"), @"error: adapter `layers.0`: r is 65, but it must be at most min(m, n) = 64");
    assert_snapshot!(train("--alpha", "0"), @"error: adapter `layers.0`: scale is 0, but it must be positive and finite");
    assert_snapshot!(train("--batch", "0"), @"error: the run: batch is 0, but it must be from 1 to 399, the number of training rows");
    assert_snapshot!(train("--weight-decay", "inf"), @r"
    error: invalid value 'inf' for '--weight-decay <W>': it is not a finite number

    For more information, try '--help'.
    ");
    assert_snapshot!(train("--damping", "relative:2"), @"error: the optimizer: damping (relative) is 2, but it must be in (0, 1)");
    assert_snapshot!(train("--damping", "absolute:nan"), @"error: the command line: `optimizer.damping.absolute` is not a finite number");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn words_that_are_not_known_are_refused() {
    let folder = folder();
    let train = |option: &str, value: &str| {
        let arguments = [
            "train",
            "--backend",
            "reference",
            "--out",
            "run",
            option,
            value,
        ];
        refusal(folder.path(), &arguments)
    };
    assert_snapshot!(train("--method", "adamw"), @r"
    error: invalid value 'adamw' for '--method <METHOD>'
      [possible values: lora, rslora, lora+, lora-pro, full-ft]

    For more information, try '--help'.
    ");
    assert_snapshot!(train("--x", "w"), @r"
    error: invalid value 'w' for '--x <X>': `w` is not a choice of X: use one of sylvester symmetric zero

    For more information, try '--help'.
    ");
    assert_snapshot!(train("--damping", "much"), @r"
    error: invalid value 'much' for '--damping <DAMPING>': `much` is not a damping: use none, absolute:D, relative:C or cutoff:C

    For more information, try '--help'.
    ");
    assert_snapshot!(train("--preset", "best"), @r"
    error: invalid value 'best' for '--preset <PRESET>': `best` is not a preset: use one of paper recommended

    For more information, try '--help'.
    ");
    let arguments = [
        "train", "--out", "run", "--method", "lora", "--mode", "full",
    ];
    assert_snapshot!(refusal(folder.path(), &arguments), @r"
    backend: cpu ([...])
    error: mode is for method lora-pro only, not for lora
    ");
    assert_snapshot!(refusal(folder.path(), &["gap", "--method", "full-ft"]), @r"
    backend: cpu ([...])
    error: full fine-tuning has no gap: its E is g
    ");
}

#[test]
fn data_that_cannot_be_used_is_refused() {
    let folder = folder();
    let compare = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        refusal(
            folder.path(),
            &["compare", "--backend", "reference", "--data", name],
        )
    };
    assert_snapshot!(compare("word.csv", "1,2,0\n1,x,1\n"), @"error: word.csv: line 2, column 2: `x` is not a finite number");
    assert_snapshot!(compare("nan.csv", "1,2,0\nNaN,2,1\n"), @"error: nan.csv: line 2, column 1: `NaN` is not a finite number");
    assert_snapshot!(compare("empty.csv", ""), @"error: empty.csv: it has no rows");
    assert_snapshot!(compare("short.csv", "1,2,0\n3,4,1\n"), @"error: short.csv: rows is 2, but it must be enough for a row each in pre-training, training, validation and test");
    assert_snapshot!(refusal(folder.path(), &["compare", "--data", "no.csv"]), @r"
    backend: cpu ([...])
    error: no.csv: No such file or directory (os error 2)
    ");
    assert!(!folder.path().join("report.html").exists());
}

#[test]
fn configuration_files_are_checked() {
    let folder = folder();
    let train = |text: &str| {
        fs::write(folder.path().join("run.toml"), text).unwrap();
        let arguments = [
            "train",
            "--backend",
            "reference",
            "--out",
            "run",
            "--config",
            "run.toml",
        ];
        refusal(folder.path(), &arguments)
    };
    assert_snapshot!(train("rank = "), @r"
    error: run.toml: TOML parse error at line 1, column 8
      |
    1 | rank = 
      |        ^
    string values must be quoted, expected literal string
    ");
    assert_snapshot!(train("ranks = 4"), @"error: run.toml: unknown field `ranks`, expected one of `model`, `data`, `task`, `validation_data`, `test_data`, `dtype`, `max_length`, `pretrain_steps`, `method`, `mode`, `adapter`, `rank`, `alpha`, `target_modules`, `exclude_modules`, `layers_to_transform`, `rank_pattern`, `alpha_pattern`, `modules_to_save`, `steps`, `batch`, `seed`, `epochs`, `micro_batches`, `lora_dropout`, `optimizer`");
    assert_snapshot!(train("rank = \"four\""), @r#"error: run.toml: invalid type: string "four", expected usize"#);
    assert_snapshot!(train("[optimizer]\nlearning_rate = 1e-3"), @"error: the optimizer's settings: unknown field `learning_rate`, use one of amsgrad, beta1, beta2, damping, decay_base, eps, lr, lr_ratio, maximize, method, moment_dtype, momentum, rounding, update_clip, weight_decay, x, preset, groups, max_grad_norm, on_non_finite, schedule");
    assert_snapshot!(train("[optimizer]\nbeta2 = 1.5"), @"error: the optimizer: beta2 is 1.5, but it must be in [0, 1)");
    assert_snapshot!(train("[optimizer]\nmethod = \"full\""), @"error: run.toml: `optimizer.method` follows from `method` and `mode`, which stand above it");
    assert_snapshot!(train("optimizer = 3"), @"error: run.toml: `optimizer` must be a table");
    assert_snapshot!(train("[optimizer.groups.head]\nlr = -1.0"), @"error: group `head`: lr is -1, but it must be finite and at least 0");
    assert_snapshot!(train("alpha = nan"), @"error: run.toml: `alpha` is not a finite number");
    assert_snapshot!(train("[optimizer]\nupdate_clip = inf"), @"error: run.toml: `optimizer.update_clip` is not a finite number");
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_work() {
    let folder = folder();
    let compare = |option| refusal(folder.path(), &["compare", "--backend=reference", option]);
    assert_snapshot!(compare("--out=no/report.html"), @"error: no/report.html: there is no such folder to write it to");
    assert_snapshot!(compare("--json=."), @"error: .: it is a folder");
}

/// `head` leaves before everything is written: no panic, no complaint.
#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = folder();
    let mut child = command(folder.path(), &["info"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_gpu_that_is_asked_for_and_not_there_is_an_error() {
    let folder = folder();
    let case = vector("00-full.safetensors");
    let case = case.to_str().expect("a path in UTF-8");
    let said = lora_pro(folder.path(), &["replay", case, "--backend", "cuda"]);
    assert_eq!(said.code, Some(1), "{said:#?}");
    assert!(said.stdout.is_empty(), "{said:#?}");
    assert!(
        said.stderr.starts_with("error: the cuda backend: "),
        "{said:#?}"
    );
}
