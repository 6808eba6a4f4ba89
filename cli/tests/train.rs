//! `lora-pro train`: adapters, checkpoints, interruption, resumption.

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{command, folder, lora_pro, refusal, succeeds};
use insta::assert_snapshot;
use lora_pro_core::read_tensors;

const ADAPTER: &str = "adapter_model.safetensors";
const CHECKPOINT: &str = "checkpoint.safetensors";

/// A short run; the learning rate falls, so that steps after a resumption count.
const SHORT: [&str; 9] = [
    "train",
    "--backend",
    "reference",
    "--steps",
    "40",
    "--save-every",
    "5",
    "--rank=2",
    "--pretrain-steps=20",
];

fn short<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SHORT.iter().chain(more).copied().collect()
}

fn read(folder: &Path, run: &str, file: &str) -> Vec<u8> {
    fs::read(folder.join(run).join(file)).unwrap()
}

#[test]
fn every_method_trains_and_saves_an_adapter() {
    let folder = folder();
    for (run, method) in [
        ("lora", &["--method", "lora"][..]),
        ("rslora", &["--method", "rslora"]),
        ("plus", &["--method", "lora+"]),
        ("factored", &[]),
        ("full", &["--mode", "full"]),
        ("efficient", &["--mode", "efficient"]),
        ("sgd", &["--mode", "sgd", "--lr", "0.1"]),
    ] {
        let arguments = ["train", "--steps=4", "--pretrain-steps=20", "--out", run];
        let said = succeeds(folder.path(), &[&arguments, method].concat());
        assert!(
            said.stdout.starts_with("steps 4, loss "),
            "{run}: {}",
            said.stdout
        );
        let tensors = read_tensors(&read(folder.path(), run, ADAPTER)).unwrap();
        assert!(
            tensors.keys().any(|name| name.ends_with("lora_A.weight")),
            "{run}"
        );
        assert!(folder.path().join(run).join("adapter_config.json").exists());
    }
    succeeds(
        folder.path(),
        &[
            "train",
            "--steps=4",
            "--pretrain-steps=20",
            "--method=full-ft",
            "--out=ft",
        ],
    );
    assert!(folder.path().join("ft").join(CHECKPOINT).exists());
    assert!(!folder.path().join("ft").join(ADAPTER).exists());
}

/// Killed without warning at several moments, resumed, and no bit is different.
#[test]
fn a_killed_run_resumes_to_the_last_bit() {
    let folder = folder();
    let arguments = |run| short(&["--out", run, "--resume"]);
    succeeds(folder.path(), &arguments("whole"));
    let resumed = (1..=3).filter(|k| kill_after_savings(folder.path(), &arguments("cut"), *k));
    assert!(
        resumed.count() > 0,
        "the run was over before it could be killed"
    );
    succeeds(folder.path(), &arguments("cut"));
    for file in [ADAPTER, "adapter_config.json"] {
        assert_eq!(
            read(folder.path(), "whole", file),
            read(folder.path(), "cut", file),
            "{file}"
        );
    }
    let tensors = |run| read_tensors(&read(folder.path(), run, CHECKPOINT)).unwrap();
    assert_eq!(tensors("whole"), tensors("cut"));
    assert_eq!(log(folder.path(), "whole"), log(folder.path(), "cut"));
}

/// The lines of a run's log, without the time that each step took.
fn log(folder: &Path, run: &str) -> Vec<serde_json::Value> {
    let text = String::from_utf8(read(folder, run, "log.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let untimed = lines.map(|mut line: serde_json::Value| {
        line.as_object_mut().unwrap().remove("seconds");
        line
    });
    untimed.collect()
}

/// At learning rate 0 no evaluation is better than the first.
#[test]
fn training_stops_early_and_keeps_the_best_adapter() {
    let folder = folder();
    let train = |more: &[&str]| {
        let common = ["--out=run", "--lr=0", "--evaluate-every=6"];
        succeeds(folder.path(), &short(&[&common[..], more].concat()))
    };
    let stopped = train(&["--patience=2"]);
    assert!(stopped.stdout.contains("steps 18,"), "{}", stopped.stdout);
    assert!(
        stopped.stdout.contains(", best at step 6,"),
        "{}",
        stopped.stdout
    );
    assert!(
        stopped.stderr.contains("stopped early: 2 evaluations"),
        "{}",
        stopped.stderr
    );
    let lines = log(folder.path(), "run");
    let evaluated = |line: &&serde_json::Value| line.get("validation").is_some();
    assert_eq!(lines.len(), 18 + 3);
    assert_eq!(lines.iter().filter(evaluated).count(), 3);
    assert!(
        lines[0]["lr"] == 0.0 && lines[0]["tokens"] == 32,
        "{}",
        lines[0]
    );

    let patient = train(&["--resume"]);
    assert!(patient.stdout.contains("steps 40,"), "{}", patient.stdout);
    assert_eq!(log(folder.path(), "run").len(), 40 + 7);

    fs::write(folder.path().join("run/log.jsonl"), "{}\n").unwrap();
    let error = refusal(
        folder.path(),
        &["train", "--backend=reference", "--out=run", "--resume"],
    );
    assert!(error.contains("log.jsonl: line 1: "), "{error}");
}

/// Starts the run and kills it once it has saved `count` times; true where it was still running.
fn kill_after_savings(folder: &Path, arguments: &[&str], count: usize) -> bool {
    let checkpoint = folder.join("cut").join(CHECKPOINT);
    let modified = || {
        fs::metadata(&checkpoint)
            .and_then(|data| data.modified())
            .ok()
    };
    let mut child = command(folder, arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut seen, mut last) = (0, modified());
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen < count && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "nothing was saved");
        std::thread::sleep(Duration::from_millis(1));
        let now = modified();
        if now != last {
            (seen, last) = (seen + 1, now);
        }
    }
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_previous_one_is_there() {
    let folder = folder();
    succeeds(folder.path(), &short(&["--out", "run"]));
    let path = folder.path().join("run").join(CHECKPOINT);
    let whole = fs::read(&path).unwrap();
    let resume = [
        "train",
        "--backend",
        "reference",
        "--out",
        "run",
        "--resume",
    ];
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bytes in [&flipped, &whole[..middle].to_vec(), &Vec::new()] {
        fs::write(&path, bytes).unwrap();
        let message = refusal(folder.path(), &resume);
        assert!(
            message.contains("checkpoint.previous.safetensors"),
            "{message}"
        );
    }
    fs::write(&path, &flipped).unwrap();
    assert_snapshot!(refusal(folder.path(), &resume), @"error: run/checkpoint.safetensors: its checksum is wrong: the file is damaged; the one before it is run/checkpoint.previous.safetensors");
    let previous = folder.path().join("run/checkpoint.previous.safetensors");
    fs::rename(previous, &path).unwrap();
    let said = succeeds(folder.path(), &resume);
    assert_snapshot!(said.stderr.lines().next().unwrap_or_default(), @"resumed after step 35 of 40");
}

#[test]
fn a_run_is_not_overwritten_nor_mixed_with_another() {
    let folder = folder();
    succeeds(folder.path(), &short(&["--out", "run"]));
    assert_snapshot!(refusal(folder.path(), &short(&["--out", "run"])), @"error: run/checkpoint.safetensors is there already: --resume goes on with it, another --out starts anew");
    let other = short(&["--out", "run", "--resume", "--lr", "0.5"]);
    assert_snapshot!(refusal(folder.path(), &other), @"error: run/checkpoint.safetensors: the checkpoint was made with config.lr 0.0005, not 0.5: omit the options to keep what is saved");
    fs::write(folder.path().join("rows.csv"), rows()).unwrap();
    let other = ["train", "--out", "run", "--resume", "--data", "rows.csv"];
    assert_snapshot!(refusal(folder.path(), &[&other[..], &["--backend", "reference"]].concat()), @"error: run/checkpoint.safetensors: this run was trained on handwritten digits, not on the rows given now");
}

/// Two classes on either side of a line, on a small grid.
fn rows() -> String {
    let row = |k: usize| format!("{},{},{}\n", k % 16, k / 16, usize::from(k % 16 > k / 16));
    (0..256).map(row).collect()
}

#[test]
fn a_csv_file_and_a_configuration_file_set_up_a_run() {
    let folder = folder();
    fs::write(folder.path().join("rows.csv"), rows()).unwrap();
    let text = "data = \"rows.csv\"\npretrain_steps = 20\nmethod = \"lora+\"\nrank = 2\nsteps = 9\n\
                [optimizer]\nlr = 1e-3\nschedule = { cosine = { warmup = 2, total = 9 } }\n\
                [optimizer.groups.head]\nlr = 1e-2\n";
    fs::write(folder.path().join("run.toml"), text).unwrap();
    let arguments = [
        "train", "--config", "run.toml", "--out", "run", "--steps", "6",
    ];
    let said = succeeds(folder.path(), &arguments);
    assert!(
        said.stdout.starts_with("steps 6, "),
        "the command line wins: {}",
        said.stdout
    );
    let config = read(folder.path(), "run", "adapter_config.json");
    assert!(String::from_utf8(config).unwrap().contains("\"r\": 2"));
}

#[test]
fn a_run_that_diverges_fails_and_keeps_what_it_had() {
    let folder = folder();
    let arguments = [
        "train",
        "--out=run",
        "--method=lora",
        "--lr=1e30",
        "--save-every=1",
    ];
    let outcome = lora_pro(
        folder.path(),
        &[&arguments[..], &["--pretrain-steps=20"]].concat(),
    );
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.stderr.contains("training diverged at step"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_gap_is_measured_over_a_run() {
    let folder = folder();
    let arguments = [
        "gap",
        "--pretrain-steps=20",
        "--steps=6",
        "--every=3",
        "--method=lora",
    ];
    let said = succeeds(folder.path(), &arguments);
    let steps = said
        .stdout
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    assert_eq!(steps.collect::<Vec<_>>(), ["1", "4", "6"]);
}
