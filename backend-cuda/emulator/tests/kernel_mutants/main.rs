//! Kernels of the CUDA backend with one thing wrong: a battery of quick checks must see each of them.
//!
//! Mutants are made from the kernels' text by operators, and a few are written by hand
//! (backend-cuda/kernels/mutants.toml, which also lists those that change nothing, with the reason).
//! One is compiled to a library of its own, and this program is started once more to run the battery on
//! it. All mutants are in [`PARTS`] parts. `cargo test` tries the first; all are tried by
//!
//! ```text
//! cargo test --release -p lora-pro-cuda-emulator --test kernel_mutants -- --ignored --nocapture
//! ```
//!
//! where `LORA_PRO_PARTS=4..9` takes some parts only, and `LORA_PRO_MUTANTS=text,text` those with one of
//! the texts in their description (`FILE:LINE operator ...`): after a change of one file, its own. To
//! see the battery fail, name a mutant's library in `LORA_PRO_EMULATOR_LIBRARY` and run the test
//! `battery`.

#[path = "../common/mod.rs"]
mod common;

mod base;
mod batches;
mod battery;
mod device;
mod list;
mod moments;
mod params;
mod refused;
mod rounding;
mod steps;

use lora_pro_cuda_emulator::mutants::Mutant;

use list::{Tried, all, try_all};

/// One part takes about a minute and a half on two cores.
const PARTS: u64 = 60;

/// The kernels themselves, and in a child process whatever library `LORA_PRO_EMULATOR_LIBRARY` names.
#[test]
fn battery() {
    battery::run();
}

/// Those that are to be caught.
fn harmful() -> Vec<Mutant> {
    let (mut mutants, equivalents) = all();
    mutants.retain(|mutant| {
        !equivalents
            .iter()
            .any(|equivalent| equivalent.covers(mutant))
    });
    mutants
}

#[test]
fn every_equivalent_is_there() {
    let (mutants, equivalents) = all();
    println!(
        "{} mutants, of which {} are to be caught",
        mutants.len(),
        harmful().len()
    );
    for equivalent in equivalents {
        let found = mutants.iter().any(|mutant| equivalent.covers(mutant));
        assert!(found, "no mutant is meant by {equivalent:?}");
    }
}

#[test]
fn a_sample_is_caught() {
    let mut sample = harmful();
    sample.retain(|mutant| mutant.part_of(PARTS) == 0);
    assert!(sample.len() >= 25);
    all_caught(&sample);
}

#[test]
#[ignore = "takes an hour and a half on two cores"]
fn all_are_caught() {
    let wanted = std::env::var("LORA_PRO_MUTANTS").unwrap_or_default();
    let parts = std::env::var("LORA_PRO_PARTS").unwrap_or(format!("0..{PARTS}"));
    let (first, end) = parts.split_once("..").expect("two numbers");
    let parts = first.parse().expect("a number")..end.parse().expect("a number");
    let mut mutants = harmful();
    mutants.retain(|mutant| {
        let text = mutant.to_string();
        parts.contains(&mutant.part_of(PARTS)) && wanted.split(',').any(|part| text.contains(part))
    });
    mutants.sort_by_key(|mutant| mutant.part_of(PARTS));
    all_caught(&mutants);
}

fn all_caught(mutants: &[Mutant]) {
    let tried = try_all(mutants);
    let survivors: Vec<String> = tried
        .iter()
        .filter(|tried| tried.survived())
        .map(Tried::row)
        .collect();
    let compiled = tried.iter().filter(|tried| tried.compiles()).count();
    println!(
        "{} tried, {compiled} compile, {} survive",
        tried.len(),
        survivors.len()
    );
    assert!(
        survivors.is_empty(),
        "not caught:\n{}",
        survivors.join("\n")
    );
}
