//! The laws on every backend and in both computing precisions, each over random cases and over
//! extreme ones.

use lora_pro_conformance::laws::{Applies, LAWS, Law};
use lora_pro_conformance::residual::holds;
use lora_pro_conformance::sample::{CaseSpec, any_rank, early, full_rank};
use lora_pro_conformance::subject::Subject;
use lora_pro_core::{Backend, DType};
use lora_pro_cpu::CpuBackend;
use lora_pro_reference::ReferenceBackend;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// Random cases per law, unless the environment says otherwise (PROPTEST_CASES).
const CASES: u32 = 96;

/// Condition numbers kappa up to where u kappa^2 = 1e-4, and up to 1 / u; as powers of 10.
fn decades(dtype: DType) -> [f64; 2] {
    let u = dtype.unit_roundoff();
    [(1e-4 / u).log10() / 2.0, -u.log10()]
}

fn run(subject: &Subject, law: &Law) {
    for decades in decades(subject.dtype) {
        match law.applies {
            Applies::FullRank => search(subject, law, full_rank(decades)),
            Applies::AnyRank => search(subject, law, any_rank(decades)),
            Applies::Trajectory => search(subject, law, early(decades.min(2.0))),
        }
    }
}

fn search(subject: &Subject, law: &Law, cases: impl Strategy<Value = CaseSpec>) {
    let cases_wanted = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    let config = Config {
        cases: cases_wanted.unwrap_or(CASES),
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(Default::default()),
    );
    let outcome = runner.run(&cases, |spec| {
        let ratio = law
            .ratio(subject, &spec)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        if holds(ratio) {
            Ok(())
        } else {
            Err(TestCaseError::fail(format!(
                "law {} ({}) on {} in {}: ratio {ratio:e}",
                law.number, law.name, subject.name, subject.dtype
            )))
        }
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

macro_rules! laws {
    ($($test:ident: $number:literal),+ $(,)?) => {
        /// One test per law; `SUBJECT` is the including module's.
        macro_rules! tests {
            () => {$(
                #[test]
                fn $test() {
                    super::run(&SUBJECT, &super::LAWS[$number - 1]);
                }
            )+};
        }
    };
}

laws! {
    law_01_orthogonality: 1,
    law_02_optimality: 2,
    law_03_x_invariance: 3,
    law_04_descent: 4,
    law_05_sylvester: 5,
    law_06_nearness: 6,
    law_07_reparametrisation: 7,
    law_08_rotation: 8,
    law_09_scale: 9,
    law_10_exactness: 10,
    law_11_rank_deficient: 11,
    law_12_recurrence: 12,
    law_13_independence: 13,
    law_14_resume: 14,
    law_15_balance: 15,
    law_16_transpose: 16,
    law_17_rotation_of_factors: 17,
    law_18_rejection: 18,
    law_19_momentum: 19,
    law_20_decay: 20,
    law_21_clip: 21,
    law_22_gradients: 22,
    law_23_skip: 23,
    law_24_amsgrad: 24,
    law_25_unpaired: 25,
}

macro_rules! subjects {
    ($($module:ident: $name:literal, $dtype:ident, $make:path);+ $(;)?) => {$(
        mod $module {
            use super::*;

            const SUBJECT: Subject = Subject {
                name: $name,
                make: &$make,
                dtype: DType::$dtype,
            };

            tests!();
        }
    )+};
}

fn reference() -> Box<dyn Backend> {
    Box::new(ReferenceBackend::new())
}

fn cpu() -> Box<dyn Backend> {
    Box::new(CpuBackend::new())
}

subjects! {
    reference_f64: "reference", F64, reference;
    reference_f32: "reference", F32, reference;
    cpu_f64: "cpu", F64, cpu;
    cpu_f32: "cpu", F32, cpu;
}
