//! Mutants: read, checked, applied, and run against tests that fail, pass, or do not end.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::sources;
use lora_pro_cuda_emulator::Emulator;
use lora_pro_cuda_emulator::mutants::{By, Mutant, Verdict, apply, check, load, run};

const LIST: &str = r#"
[[mutant]]
id = "no barrier in block_sum"
file = "right.cuh"
from = "    __syncthreads();\n    if (t < 32) {"
to = "    if (t < 32) {"

[[mutant]]
id = "no atomic counter"
file = "right.cuh"
from = "atomicAdd("
times = 3
nth = 2
to = "atomicOr("
"#;

fn listed() -> Vec<Mutant> {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("mutants.toml");
    std::fs::write(&list, LIST).unwrap();
    load(&list).unwrap()
}

#[test]
fn a_list_is_read_and_checked() {
    let mut mutants = listed();
    assert_eq!((mutants[0].times, mutants[0].nth), (1, 1));
    assert_eq!((mutants[1].times, mutants[1].nth), (3, 2));
    check(&mutants, &sources()).unwrap();

    let wrong: [fn(&mut Mutant); 5] = [
        |mutant| mutant.times = 2,
        |mutant| mutant.nth = 4,
        |mutant| mutant.nth = 0,
        |mutant| mutant.file = "none.cuh".into(),
        |mutant| mutant.from = "nowhere".into(),
    ];
    for change in wrong {
        let mut mutants = mutants.clone();
        change(&mut mutants[1]);
        check(&mutants, &sources()).unwrap_err();
    }
    mutants[1].id = mutants[0].id.clone();
    check(&mutants, &sources()).unwrap_err();
}

#[test]
fn one_text_is_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let mutant = &listed()[1];
    let folder = apply(mutant, &sources(), scratch.path()).unwrap();
    let read = |folder: &Path| std::fs::read_to_string(folder.join("right.cuh")).unwrap();
    let (before, after) = (read(&sources()), read(&folder));
    let lines = before
        .lines()
        .zip(after.lines())
        .filter(|(before, after)| before != after);
    let changed: Vec<_> = lines.collect();
    assert_eq!(
        changed,
        [("    atomicAdd(at, 1u);", "    atomicOr(at, 1u);")]
    );
    assert!(folder.join("wrong.cuh").exists());
}

#[test]
fn verdicts() {
    let scratch = tempfile::tempdir().unwrap();
    let mutant = &listed()[0];
    let verdict = |mutant, script: &'static str, limit| {
        let command = |library: &Path| {
            Emulator::of(library).unwrap();
            let mut command = Command::new("sh");
            command
                .args(["-c", script])
                .env("LORA_PRO_EMULATOR_LIBRARY", library);
            command
        };
        run(mutant, &sources(), scratch.path(), command, limit).unwrap()
    };
    let long = Duration::from_secs(60);
    assert_eq!(
        verdict(mutant, "test -f \"$LORA_PRO_EMULATOR_LIBRARY\"", long),
        Verdict::Survived
    );
    assert_eq!(
        verdict(mutant, "exit 3", long),
        Verdict::Caught(By::Status(3))
    );
    assert_eq!(
        verdict(mutant, "kill -9 $$", long),
        Verdict::Caught(By::Signal(9))
    );
    let start = Instant::now();
    let slow = verdict(mutant, "sleep 50; true", Duration::from_millis(300));
    assert_eq!(slow, Verdict::Caught(By::Timeout));
    assert!(start.elapsed() < Duration::from_secs(20));

    let broken = Mutant {
        id: "broken".into(),
        to: "nonsense".into(),
        ..mutant.clone()
    };
    let Verdict::DidNotCompile(text) = verdict(&broken, "true", long) else {
        panic!("it is no program");
    };
    assert!(text.contains("nonsense"), "{text}");
}
