//! Backends against the reference, step by step from identical bits, over random cases.

use lora_pro_conformance::differential::{self, Case, compare};
use lora_pro_conformance::residual::holds;
use lora_pro_conformance::support::stress_cases::cases;
use lora_pro_core::{Backend, DType, MomentDType};
use lora_pro_cpu::{CpuBackend, CpuOptions, SimdLevel};
use lora_pro_variants::VariantBackend;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Runs, TestRng, TestRunner};

mod common;

use common::{cpu, cuda, reference};

/// Random cases per storage type, unless the environment says otherwise (PROPTEST_CASES).
const CASES: u32 = 150;

/// Panics where a case fails, and where too many steps were not compared.
fn search(make: &dyn Fn() -> Box<dyn Backend>, cases: impl Strategy<Value = Case>, count: u32) {
    let wanted = std::env::var("PROPTEST_CASES");
    let wanted = wanted.ok().and_then(|n| n.parse().ok());
    let total = differential::search(make, &cases, wanted.unwrap_or(count));
    let total = total.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{total:?}");
    assert!(total.ill_posed * 20 <= total.compared, "{total:?}");
}

macro_rules! searches {
    ($($test:ident: $make:ident, $dtype:ident);+ $(;)?) => {$(
        #[test]
        fn $test() {
            search(&$make, cases(DType::$dtype), CASES);
        }
    )+};
}

searches! {
    cpu_in_f64: cpu, F64;
    cpu_in_f32: cpu, F32;
    cpu_in_bf16: cpu, Bf16;
    cpu_in_f16: cpu, F16;
    cuda_in_f64: cuda, F64;
    cuda_in_f32: cuda, F32;
    cuda_in_bf16: cuda, Bf16;
    cuda_in_f16: cuda, F16;
    reference_in_f32: reference, F32;
}

/// Every instruction set by itself.
#[test]
fn every_simd_level() {
    for level in SimdLevel::available() {
        let make = move || -> Box<dyn Backend> {
            let options = CpuOptions::default().simd_level(level);
            Box::new(CpuBackend::with(options).expect("the level is available"))
        };
        for dtype in DType::PARAMETERS {
            search(&make, cases(dtype), CASES / 10);
        }
    }
}

fn faulty(fault: &'static str) -> impl Fn() -> Box<dyn Backend> {
    move || Box::new(VariantBackend::new(fault))
}

/// A subject whose gradients are rounded once more than the reference's is right.
#[test]
fn rounding_passes() {
    // With f64 moments thin matrices are computed in f64, and this would be an error.
    let in_f32 = cases(DType::F32).prop_map(|mut case| {
        if case.config.hyper.moment_dtype == MomentDType::F64 {
            case.config.hyper.moment_dtype = MomentDType::F32;
        }
        case
    });
    search(&faulty("noise-of-f32"), in_f32, CASES);
    search(&faulty("noise-of-f64"), cases(DType::F64), CASES);
}

/// Small errors and large ones that a backend could have; each must be seen.
const ERRORS: [&str; 20] = [
    "ascent",
    "gradient-sign-of-a",
    "scale-squared",
    "gradient-of-a-longer",
    "gradient-entry-left-out",
    "another-x",
    "no-damping",
    "bias-correction-one-late",
    "beta1-shorter",
    "beta2-shorter",
    "eps-longer",
    "momentum-shorter",
    "lr-ratio-longer",
    "no-decay",
    "base-decay-ignored",
    "update-clip-ignored",
    "first-state-tensor-stale",
    "first-column-not-written",
    "one-entry-not-written",
    "update-longer",
];

/// In which share of the cases an error is seen that can be seen there; small cases are enough.
#[test]
fn small_faults_are_seen() {
    for name in ERRORS {
        let mut runner = TestRunner::new_with_rng(
            Runs::default(),
            TestRng::deterministic_rng(Default::default()),
        );
        let mut seen = 0;
        for _ in 0..CASES / 3 {
            let case = cases(DType::F32)
                .new_tree(&mut runner)
                .expect("the strategy filters nothing")
                .current();
            let case = Case {
                steps: case.steps.min(3),
                ..case
            };
            let finding = compare(&faulty(name), &case).expect("a comparison");
            seen += u32::from(!holds(finding.ratio));
        }
        println!("{name}: seen in {seen} of {} cases", CASES / 3);
        assert!(seen > 0, "{name} is not seen");
    }
}
