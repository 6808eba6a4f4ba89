//! Mutants: made, listed, applied, and run against tests that fail, pass, or do not end.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::sources;
use lora_pro_cuda_emulator::Emulator;
use lora_pro_cuda_emulator::mutants::{
    By, List, Mutant, MutantOutcome, apply, generate, load, run,
};

const LIST: &str = r#"
[[mutant]]
file = "right.cuh"
what = "no barrier in block_sum"
from = "    __syncthreads();\n    if (t < 32) {"
to = "    if (t < 32) {"

[[equivalent]]
file = "right.cuh"
line = "atomicAdd(at, 1u);"
operators = ["statement"]
why = "for this test"
"#;

fn list(text: &str) -> List {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("mutants.toml");
    std::fs::write(&list, text).unwrap();
    load(&list).unwrap()
}

fn by_hand() -> Mutant {
    list(LIST).by_hand(&sources()).unwrap().remove(0)
}

/// What the operators make of some statements, each as the text that comes of it.
fn made_of(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.cu"), text).unwrap();
    let mutants = generate(folder.path(), "x.cu").unwrap();
    let changed = |mutant: &Mutant| {
        let bytes = mutant.bytes.clone();
        format!(
            "{}: {}{}{}",
            mutant.what,
            &text[..bytes.start],
            mutant.to,
            &text[bytes.end..]
        )
    };
    mutants.iter().map(changed).collect()
}

#[test]
fn each_operator_makes_one_edit() {
    let cases = [
        ("y = a + -1.5f;", "arithmetic: y = a - -1.5f;"),
        ("y = a + -1.5f;", "sign: y = a + 1.5f;"),
        ("y = a + -1.5f;", "constant: y = a + -(1e3f * 1.5f);"),
        ("y = a + -1.5f;", "statement: ;"),
        ("u32 z = k < 2;", "comparison: u32 z = k <= 2;"),
        ("u32 z = k < 2;", "constant: u32 z = k < (2 + 1);"),
        ("z = s && t ? u : v;", "logic: z = s || t ? u : v;"),
        ("z = s && t ? u : v;", "always: z = s && t || true ? u : v;"),
        ("z = s && t ? u : v;", "never: z = s && t && false ? u : v;"),
        ("if (s) call(t);", "always: if (true) call(t);"),
        ("if (s) { call(t); }", "never: if (false) { call(t); }"),
        ("if (s) return;", "statement: if (s) ;"),
        ("int z = rows * cols;", "name: int z = cols * cols;"),
        (
            "call(s, of(t), turned(u));",
            "arguments: call(s, turned(u), of(t));",
        ),
        ("__syncthreads();", "statement: ;"),
    ];
    for (text, expected) in cases {
        let made = made_of(text);
        assert!(
            made.iter().any(|made| made == expected),
            "{expected} is not among {made:#?}"
        );
    }
}

/// Declarations, comments, template brackets, pointers, and the strides of loops.
#[test]
fn what_is_no_arithmetic_stays() {
    for text in [
        "// a + b < c",
        "#pragma unroll 4\n",
        "template <class T> DEVICE T* at(const View& view);",
        "typedef Vector<T> V;",
        "const T* z = static_cast<T*>(w);",
    ] {
        assert_eq!(made_of(text), Vec::<String>::new(), "{text}");
    }
    let loops = made_of("for (int k = s; k < t; k += u) call(k);");
    assert!(
        loops.iter().all(|made| made.contains("k += u)")),
        "{loops:#?}"
    );
}

#[test]
fn a_list_is_read_and_checked() {
    let mutants = list(LIST).by_hand(&sources()).unwrap();
    assert_eq!(mutants.len(), 1);
    for (right, wrong) in [
        ("(t < 32)", "(t < 33)"),
        ("right.cuh\"\nwhat", "none.cuh\"\nwhat"),
    ] {
        let list = list(&LIST.replace(right, wrong));
        list.by_hand(&sources()).unwrap_err();
    }
    let list = list(LIST);
    let equivalent = &list.equivalents()[0];
    let covered: Vec<_> = generate(&sources(), "right.cuh").unwrap();
    let covered = covered.iter().filter(|mutant| equivalent.covers(mutant));
    assert_eq!(covered.count(), 1);
}

#[test]
fn one_text_is_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let mutants = generate(&sources(), "right.cuh").unwrap();
    let mutant = mutants
        .iter()
        .find(|x| x.from == "atomicAdd(at, 1u);")
        .unwrap();
    apply(mutant, &sources(), scratch.path()).unwrap();
    let read = |folder: &Path| std::fs::read_to_string(folder.join("right.cuh")).unwrap();
    let (before, after) = (read(&sources()), read(scratch.path()));
    let lines = before.lines().zip(after.lines());
    let changed: Vec<_> = lines.filter(|(before, after)| before != after).collect();
    assert_eq!(changed, [("    atomicAdd(at, 1u);", "    ;")]);
    assert!(scratch.path().join("wrong.cuh").exists());
}

#[test]
fn verdicts() {
    let scratch = tempfile::tempdir().unwrap();
    let mutant = &by_hand();
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
        MutantOutcome::Survived
    );
    assert_eq!(
        verdict(mutant, "exit 3", long),
        MutantOutcome::Caught(By::Status(3))
    );
    assert_eq!(
        verdict(mutant, "kill -9 $$", long),
        MutantOutcome::Caught(By::Signal(9))
    );
    let endless = verdict(mutant, "while :; do :; done", Duration::from_secs(1));
    assert_eq!(endless, MutantOutcome::Caught(By::Timeout));

    let broken = Mutant {
        to: "nonsense".into(),
        ..mutant.clone()
    };
    let MutantOutcome::DidNotCompile(text) = verdict(&broken, "true", long) else {
        panic!("it is no program");
    };
    assert!(text.contains("nonsense"), "{text}");
}
