//! Kernels of the CUDA backend with one thing wrong (backend-cuda/kernels/mutants.toml): a battery
//! of quick checks must see each of them.
//!
//! A mutant is compiled to a library of its own, and this program is started once more to run the
//! battery on it. `cargo test` tries a sample, every [`SAMPLE`]-th; all of them, in a quarter of an
//! hour on two cores, with
//!
//! ```text
//! cargo test --release -p lora-pro-conformance --test kernel_mutants -- --ignored
//! ```
//!
//! where `LORA_PRO_WRITE=1` writes what became of them to backend-cuda/kernels/mutants.md, and
//! `LORA_PRO_MUTANTS=text` takes only those with the text in their names. To see the battery fail,
//! name a mutant's library in `LORA_PRO_SHIM` and run the test `battery`.

#[path = "../common/mod.rs"]
mod common;

mod base;
mod batches;
mod battery;
mod list;
mod moments;
mod params;
mod refused;
mod rounding;
mod steps;

use list::{Tried, all, table, try_all, written};

/// One of so many is tried in every run of the tests.
const SAMPLE: usize = 14;

/// The kernels themselves, and in a child process whatever library `LORA_PRO_SHIM` names.
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
    let mutants: Vec<_> = all()
        .into_iter()
        .filter(|mutant| mutant.id.contains(&wanted))
        .collect();
    let tried = try_all(&mutants);
    if wanted.is_empty() && std::env::var_os("LORA_PRO_WRITE").is_some() {
        std::fs::write(written(), table(&tried)).expect("it can be written");
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
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.map(|row| row.split('`').next().unwrap_or_default());
    let ids = all().into_iter().map(|mutant| mutant.id);
    assert!(rows.eq(ids), "write it anew");
}
