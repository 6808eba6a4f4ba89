//! Kernels of the CUDA backend with one thing wrong (backend-cuda/kernels/mutants.toml): a battery
//! of quick checks must see each of them.
//!
//! A mutant is compiled to a library of its own, and this program is started once more to run the
//! battery on it. `cargo test` tries a sample, every [`SAMPLE`]-th; all of them, in a quarter of an
//! hour on two cores, with
//!
//! ```text
//! cargo test --release -p lora-pro-cuda-emulator --test kernel_mutants -- --ignored
//! ```
//!
//! where `LORA_PRO_WRITE=1` writes what became of them to backend-cuda/kernels/mutants.md, and
//! `LORA_PRO_MUTANTS=text,text` takes only those with one of the texts in the name or the file: after
//! a change of one file, its own. To see the battery fail, name a mutant's library in `LORA_PRO_EMULATOR_LIBRARY`
//! and run the test `battery`.

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

use list::{Tried, all, names, table, try_all, written};

/// One of so many is tried in every run of the tests.
const SAMPLE: usize = 7;

/// The kernels themselves, and in a child process whatever library `LORA_PRO_EMULATOR_LIBRARY` names.
#[test]
fn battery() {
    battery::run();
}

#[test]
fn a_sample_is_caught() {
    let sample: Vec<_> = all().into_iter().step_by(SAMPLE).collect();
    assert!(sample.len() >= 25);
    all_caught(&try_all(&sample));
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn all_are_caught() {
    let wanted = std::env::var("LORA_PRO_MUTANTS").unwrap_or_default();
    let mut mutants = all();
    mutants.retain(|Mutant { id, file, .. }| {
        let mut texts = wanted.split(',');
        texts.any(|text| id.contains(text) || file.contains(text))
    });
    let tried = try_all(&mutants);
    if std::env::var_os("LORA_PRO_WRITE").is_some() {
        let older = std::fs::read_to_string(written()).unwrap_or_default();
        std::fs::write(written(), table(&tried, &older)).expect("it can be written");
    }
    all_caught(&tried);
}

fn all_caught(tried: &[Tried]) {
    let missed: Vec<_> = tried.iter().filter(|tried| !tried.is_caught()).collect();
    assert!(missed.is_empty(), "not caught: {missed:#?}");
}

/// What is written is about this list.
#[test]
fn the_table_is_up_to_date() {
    let text = std::fs::read_to_string(written()).expect("it is checked in");
    assert!(
        names(&text).eq(all().iter().map(|mutant| mutant.id.as_str())),
        "write it anew"
    );
    assert!(!text.contains("SURVIVED"));
}
