//! The same bits whatever the threads, the company, the order, and what lies in scratch memory.

mod common;

use common::{Batch, Bits, METHODS, all_variants, cpu_with, differing, hyper, mixed};
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{Backend, DType, Hyper};
use lora_pro_cpu::{CpuOptions, SimdLevel};

/// Steps of a trajectory.
const STEPS: u64 = 3;

fn finish(options: CpuOptions, specs: &[CaseSpec], hyper: Hyper) -> Bits {
    let make = move || -> Box<dyn Backend> { cpu_with(options) };
    let batch = Batch::start(&make, specs, hyper).expect("valid");
    batch.finish(STEPS).expect("steps")
}

fn threads(threads: usize) -> CpuOptions {
    CpuOptions::default().threads(threads)
}

/// Every method in every storage type, with its variants.
fn settings() -> impl Iterator<Item = (DType, Hyper)> {
    let methods = DType::PARAMETERS
        .into_iter()
        .flat_map(|dtype| METHODS.map(|method| (dtype, method)));
    methods.flat_map(|(dtype, method)| {
        all_variants(dtype)
            .into_iter()
            .map(move |(moment_dtype, rounding)| {
                let hyper = hyper(method).moment_dtype(moment_dtype).rounding(rounding);
                (dtype, hyper)
            })
    })
}

fn assert_same(found: &Bits, expected: &Bits, what: &str, dtype: DType, hyper: &Hyper) {
    let differ = differing(found, expected);
    assert!(
        differ.is_empty(),
        "{what} {} {dtype} {:?}: {differ:?}",
        hyper.method,
        hyper.rounding
    );
}

#[test]
fn any_number_of_threads() {
    for (dtype, hyper) in settings() {
        let expected = finish(threads(1), &mixed(dtype), hyper);
        for count in [2, 3, 7] {
            let found = finish(threads(count), &mixed(dtype), hyper);
            assert_same(
                &found,
                &expected,
                &format!("{count} threads"),
                dtype,
                &hyper,
            );
        }
    }
}

#[test]
fn alone_and_in_any_order() {
    for (dtype, hyper) in settings() {
        let mut specs = mixed(dtype);
        let expected = finish(threads(2), &specs, hyper);
        let mut alone = Bits::new();
        for spec in &specs {
            alone.extend(finish(threads(2), &[*spec], hyper));
        }
        assert_same(&alone, &expected, "alone", dtype, &hyper);
        specs.reverse();
        specs.swap(0, 1);
        assert_same(
            &finish(threads(2), &specs, hyper),
            &expected,
            "permuted",
            dtype,
            &hyper,
        );
    }
}

/// Scratch memory that holds NaN at the start of every step holds nothing that is used.
#[test]
fn poisoned_scratch_memory() {
    let poisoned = threads(2).poison(true);
    for (dtype, hyper) in settings() {
        let expected = finish(threads(2), &mixed(dtype), hyper);
        let found = finish(poisoned, &mixed(dtype), hyper);
        assert_same(&found, &expected, "poisoned", dtype, &hyper);
    }
}

#[test]
fn every_simd_level_repeats_itself() {
    for level in SimdLevel::available() {
        let options = threads(2).simd_level(level);
        for (dtype, hyper) in settings() {
            let first = finish(options, &mixed(dtype), hyper);
            let again = finish(options, &mixed(dtype), hyper);
            assert_same(&again, &first, &level.to_string(), dtype, &hyper);
        }
    }
}

/// The mixed batch is there for the sake of both ways to spread work.
#[test]
fn both_schedules_occur() {
    let make = || -> Box<dyn Backend> { cpu_with(threads(2)) };
    for method in METHODS {
        let mut batch = Batch::start(&make, &mixed(DType::F32), hyper(method)).expect("valid");
        let plan = batch
            .step(1)
            .expect("a step")
            .parallelism
            .expect("a CPU has a choice");
        assert!(plan.whole > 0 && plan.split > 0, "{method}: {plan:?}");
    }
}
