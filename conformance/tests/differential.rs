//! Backends against the reference, step by step from identical bits, over random cases.

use lora_pro_conformance::differential::{self, Case, compare};
use lora_pro_conformance::planted::{Equations, Matrix, PlantedBackend};
use lora_pro_conformance::residual::holds;
use lora_pro_conformance::support::stress_cases::cases;
use lora_pro_core::backend::AdapterSlot;
use lora_pro_core::{Backend, DType, Damping, Hyper, MomentDType, XChoice};
use lora_pro_cpu::{CpuBackend, CpuOptions, SimdLevel};
use lora_pro_reference::factors::FactorPair;
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

type Plant = fn(&mut Equations);

fn planted(plant: Plant) -> impl Fn() -> Box<dyn Backend> {
    move || Box::new(PlantedBackend::new("planted", plant))
}

/// A subject whose gradients are rounded once more than the reference's is right.
#[test]
fn rounding_passes() {
    let f32: Plant = |e| e.raw = |pair, scale| noisy(pair, DType::F32).scaled(scale);
    let f64: Plant = |e| e.raw = |pair, scale| noisy(pair, DType::F64).scaled(scale);
    // With f64 moments thin matrices are computed in f64, and this would be an error.
    let in_f32 = cases(DType::F32).prop_map(|mut case| {
        if case.config.hyper.moment_dtype == MomentDType::F64 {
            case.config.hyper.moment_dtype = MomentDType::F32;
        }
        case
    });
    search(&planted(f32), in_f32, CASES);
    search(&planted(f64), cases(DType::F64), CASES);
}

/// A pair with noise of one or two units in the last place, up or down.
fn noisy(pair: &FactorPair, dtype: DType) -> FactorPair {
    let noisy = |x: &Matrix| {
        let cols = x.ncols();
        x.map_with_location(|i, j, x| {
            let up = (i * cols + j + 1).wrapping_mul(2_654_435_761) & 64 == 0;
            let noise = 2.0 * dtype.unit_roundoff() * if up { 1.0 } else { -1.0 };
            dtype.round(x * (1.0 + noise))
        })
    };
    FactorPair {
        a: noisy(&pair.a),
        b: noisy(&pair.b),
    }
}

/// Small errors and large ones that a backend could have; each must be seen.
const ERRORS: [(&str, Plant); 20] = [
    ("ascent", |e| {
        e.signs = |maximize| if maximize { [1.0; 2] } else { [-1.0; 2] }
    }),
    ("the sign of gA", |e| {
        e.raw = |pair, scale| a_times(pair, scale, -1.0)
    }),
    ("a power of s", |e| {
        e.scale = |slots, id| slots[id].spec.s().powi(2)
    }),
    ("gA longer by 1e-4", |e| {
        e.raw = |pair, scale| a_times(pair, scale, 1.0001)
    }),
    ("an entry of gB left out", |e| {
        e.raw = |pair, scale| {
            let mut read = pair.scaled(scale);
            read.b[0] = 0.0;
            read
        }
    }),
    ("another X", |e| {
        e.hyper = |slots, id| {
            let x = match slots[id].hyper.x {
                XChoice::Sylvester => XChoice::Symmetric,
                XChoice::Symmetric => XChoice::Zero,
                XChoice::Zero => XChoice::Sylvester,
            };
            with(slots, id, |hyper| hyper.x = x)
        }
    }),
    ("no damping", |e| {
        e.hyper = |slots, id| with(slots, id, |hyper| hyper.damping = Damping::None)
    }),
    ("bias correction one late", |e| {
        e.counter = |slots, id| slots[id].state.step + 2
    }),
    ("beta1", |e| {
        e.hyper = |slots, id| with(slots, id, |hyper| hyper.beta1 *= 0.999)
    }),
    ("beta2", |e| {
        e.hyper = |slots, id| with(slots, id, |hyper| hyper.beta2 *= 0.9999)
    }),
    ("eps", |e| {
        e.hyper = |slots, id| with(slots, id, |hyper| hyper.eps *= 1.001)
    }),
    ("momentum", |e| {
        e.hyper = |slots, id| with(slots, id, |hyper| hyper.momentum *= 0.999)
    }),
    ("lr_ratio", |e| {
        e.rates = |lr, ratio| [lr, lr * ratio * 1.001]
    }),
    ("no decay", |e| {
        e.hyper = |slots, id| with(slots, id, |hyper| hyper.weight_decay = 0.0)
    }),
    ("W0 is left alone", |e| e.base = |_, _| None),
    ("no update clip", |e| e.update_clip = |_, _, _| [1.0; 2]),
    ("a stale state tensor", |e| {
        e.remembered = |tensors| tensors.into_iter().skip(1).collect()
    }),
    ("the first column not written", |e| {
        e.written = |old, new| {
            let mut new = new.clone();
            new.set_column(0, &old.column(0));
            new
        }
    }),
    ("one entry not written", |e| {
        e.written = |old, new| {
            let mut new = new.clone();
            new[0] = old[0];
            new
        }
    }),
    ("an update longer by 1e-3", |e| {
        e.written = |old, new| new + (new - old) * 1e-3
    }),
];

fn with(slots: &[AdapterSlot], id: usize, change: impl Fn(&mut Hyper)) -> Hyper {
    let mut hyper = slots[id].hyper;
    change(&mut hyper);
    hyper
}

fn a_times(pair: &FactorPair, scale: f64, factor: f64) -> FactorPair {
    FactorPair {
        a: &pair.a * (scale * factor),
        b: &pair.b * scale,
    }
}

/// In which share of the cases an error is seen that can be seen there; small cases are enough.
#[test]
fn planted_errors_are_seen() {
    for (name, error) in ERRORS {
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
            let finding = compare(&planted(error), &case).expect("a comparison");
            seen += u32::from(!holds(finding.ratio));
        }
        println!("{name}: seen in {seen} of {} cases", CASES / 3);
        assert!(seen > 0, "{name} is not seen");
    }
}
