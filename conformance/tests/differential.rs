//! Backends against the reference, step by step from identical bits, over random cases.

use lora_pro_conformance::differential::{Case, Finding, compare};
use lora_pro_conformance::residual::holds;
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{
    Backend, Config, DType, Damping, Hyper, Method, MomentDType, Rounding, XChoice,
};
use lora_pro_cpu::{CpuBackend, Options, Path};
use lora_pro_reference::ReferenceBackend;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Runs, TestCaseError, TestRng, TestRunner};

/// Random cases per storage type, unless the environment says otherwise (PROPTEST_CASES).
const CASES: u32 = 150;

/// Around the sizes of tiles (6 x 64) and strips (64), and in between.
const SIZES: [usize; 17] = [
    1, 2, 3, 5, 6, 7, 12, 13, 31, 63, 64, 65, 96, 127, 128, 129, 140,
];

/// One dimension much larger than the other.
const THIN: [(usize, usize); 8] = [
    (1, 300),
    (300, 1),
    (3, 400),
    (400, 3),
    (7, 200),
    (200, 6),
    (2, 257),
    (257, 4),
];

fn shapes() -> impl Strategy<Value = (usize, usize, usize)> {
    let near_square = (select(&SIZES[..]), select(&SIZES[..]));
    prop_oneof![4 => near_square, 1 => select(&THIN[..])].prop_flat_map(|(m, n)| {
        let most = m.min(n);
        let rank = prop_oneof![
            2 => Just(1),
            6 => 1..=most.min(16),
            1 => Just(most.min(129)),
        ];
        (Just(m), Just(n), rank)
    })
}

/// Of full rank, with B = 0, or with any rank of either.
fn ranks(r: usize) -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![
        4 => Just((r, r)),
        2 => Just((r, 0)),
        1 => (1..=r, 0..=r),
        1 => (0..=r, 1..=r),
    ]
}

/// Condition numbers up to 1 / u.
fn adapters(dtype: DType) -> impl Strategy<Value = CaseSpec> {
    let decades = -dtype.unit_roundoff().log10();
    shapes().prop_flat_map(move |(m, n, r)| {
        let numbers = (
            prop_oneof![0.0..1.0, 0.0..decades],
            prop_oneof![0.0..1.0, 0.0..decades],
            -1.0..1.0,
            -2.0..0.5,
            -2.0..0.5,
            -0.5..1.0,
        );
        (ranks(r), numbers, any::<u64>()).prop_map(
            move |((rank_a, rank_b), (ka, kb, a, b, g, s), seed)| CaseSpec {
                m,
                n,
                r,
                rank_a,
                rank_b,
                kappa_a: 10f64.powf(ka),
                kappa_b: 10f64.powf(kb),
                size_a: 10f64.powf(a),
                size_b: 10f64.powf(b),
                size_g: 10f64.powf(g),
                s: 10f64.powf(s),
                dtype,
                seed,
                ..CaseSpec::default()
            },
        )
    })
}

fn methods() -> impl Strategy<Value = Hyper> {
    let kinds = (
        select(vec![
            Method::Lora,
            Method::Sgd,
            Method::Efficient,
            Method::Factored,
            Method::Full,
        ]),
        select(vec![XChoice::Sylvester, XChoice::Symmetric, XChoice::Zero]),
        select(vec![
            Damping::None,
            Damping::Absolute(1e-8),
            Damping::Absolute(1e-3),
            Damping::Relative(1e-4),
            Damping::Cutoff(1e-6),
        ]),
        select(vec![
            MomentDType::Auto,
            MomentDType::F32,
            MomentDType::F64,
            MomentDType::Bf16,
        ]),
        select(vec![Rounding::Nearest, Rounding::Master]),
    );
    let numbers = (
        -5.0..-1.0,
        select(vec![1.0, 4.0]),
        select(vec![0.0, 0.5, 0.9]),
        select(vec![0.0, 0.9, 0.999]),
        select(vec![1e-8, 1e-3, 1.0]),
        select(vec![0.0, 0.1]),
        select(vec![None, Some(1e-3), Some(0.3)]),
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (kinds, numbers, flags).prop_map(|(kinds, numbers, (decay_base, amsgrad, maximize))| {
        let (method, x, damping, moment_dtype, rounding) = kinds;
        let (lr, lr_ratio, beta1, beta2, eps, weight_decay, update_clip) = numbers;
        let sgd = method == Method::Sgd;
        let full = method == Method::Full;
        Hyper {
            method,
            x,
            damping,
            lr: 10f64.powf(lr),
            lr_ratio,
            beta1,
            beta2,
            eps,
            weight_decay: if sgd { 0.0 } else { weight_decay },
            decay_base,
            momentum: if sgd { beta1 } else { 0.0 },
            amsgrad: amsgrad && !sgd,
            maximize,
            update_clip,
            moment_dtype: if full {
                moment_dtype
            } else {
                MomentDType::Auto
            },
            rounding,
        }
    })
}

fn cases(dtype: DType) -> impl Strategy<Value = Case> {
    let steps = prop_oneof![6 => 1u64..=3, 2 => 4u64..=8, 1 => 20u64..=30];
    let global = (
        select(vec![None, Some(1e-2), Some(10.0)]),
        select(vec![1.0, 1.0 / 256.0, 1e-3]),
        any::<bool>(),
    );
    (adapters(dtype), methods(), steps, global).prop_map(
        |(adapter, hyper, steps, (max_grad_norm, grad_scale, unpaired))| Case {
            // A large adapter is followed for a few steps only.
            steps: if adapter.m * adapter.n * adapter.r > 100_000 {
                steps.min(2)
            } else {
                steps
            },
            adapter,
            config: Config {
                max_grad_norm,
                ..Config::from(hyper)
            },
            grad_scale,
            unpaired,
        },
    )
}

/// Steps compared and steps ill-posed, over all cases.
fn search(make: &dyn Fn() -> Box<dyn Backend>, cases: impl Strategy<Value = Case>, count: u32) {
    let wanted = std::env::var("PROPTEST_CASES");
    let wanted = wanted.ok().and_then(|n| n.parse().ok());
    let config = Runs {
        cases: wanted.unwrap_or(count),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Runs::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(Default::default()));
    let total = std::cell::RefCell::new(Finding::default());
    let outcome = runner.run(&cases, |case| {
        let finding =
            compare(make, &case).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut total = total.borrow_mut();
        total.compared += finding.compared;
        total.ill_posed += finding.ill_posed;
        total.ratio = total.ratio.max(finding.ratio);
        match holds(finding.ratio) {
            true => Ok(()),
            false => Err(TestCaseError::fail(format!("{finding:?}"))),
        }
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let total = total.into_inner();
    println!("{total:?}");
    assert!(total.ill_posed * 20 <= total.compared, "{total:?}");
}

fn reference() -> Box<dyn Backend> {
    Box::new(ReferenceBackend::new())
}

fn cpu() -> Box<dyn Backend> {
    Box::new(CpuBackend::new())
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
    reference_in_f32: reference, F32;
}

/// Every instruction set by itself.
#[test]
fn every_path() {
    for path in Path::available() {
        let make = move || -> Box<dyn Backend> {
            let options = Options {
                path: Some(path),
                ..Options::default()
            };
            Box::new(CpuBackend::with(options).expect("the path is available"))
        };
        for dtype in DType::PARAMETERS {
            search(&make, cases(dtype), CASES / 10);
        }
    }
}

#[path = "common/planted.rs"]
mod planted;

use lora_pro_core::Scale;
use planted::{Planted, Wrong, rounding};

fn wrong(wrong: Wrong) -> impl Fn() -> Box<dyn Backend> {
    move || {
        Box::new(Planted {
            inner: ReferenceBackend::new(),
            wrong,
        })
    }
}

/// A subject whose gradients are rounded once more than the reference's is right.
#[test]
fn rounding_passes() {
    let f32 = |count, x| rounding(count, x, DType::F32);
    let f64 = |count, x| rounding(count, x, DType::F64);
    // With f64 moments thin matrices are computed in f64, and this would be an error.
    let in_f32 = cases(DType::F32).prop_map(|mut case| {
        if case.config.hyper.moment_dtype == MomentDType::F64 {
            case.config.hyper.moment_dtype = MomentDType::F32;
        }
        case
    });
    search(&wrong(Wrong::Gradients(f32, f32)), in_f32, CASES);
    search(&wrong(Wrong::Gradients(f64, f64)), cases(DType::F64), CASES);
}

/// Errors that a backend could have; each must be seen.
const ERRORS: [(&str, Wrong); 20] = [
    ("ascent", Wrong::Slot(|slot| slot.hyper.maximize ^= true)),
    ("the sign of gA", Wrong::Gradients(|_, x| -x, |_, x| x)),
    (
        "a power of s",
        Wrong::Slot(|slot| slot.spec.scale = Scale::Explicit(slot.spec.s().powi(2))),
    ),
    (
        "gA longer by 1e-4",
        Wrong::Gradients(|_, x| x * 1.0001, |_, x| x),
    ),
    (
        "a row of gB left out",
        Wrong::Gradients(|_, x| x, |k, x| if k == 1 { 0.0 } else { x }),
    ),
    (
        "another X",
        Wrong::Slot(|slot| {
            slot.hyper.x = match slot.hyper.x {
                XChoice::Sylvester => XChoice::Symmetric,
                XChoice::Symmetric => XChoice::Zero,
                XChoice::Zero => XChoice::Sylvester,
            }
        }),
    ),
    (
        "no damping",
        Wrong::Slot(|slot| slot.hyper.damping = Damping::None),
    ),
    (
        "bias correction one late",
        Wrong::Slot(|slot| slot.state.step += 1),
    ),
    ("beta1", Wrong::Slot(|slot| slot.hyper.beta1 *= 0.999)),
    ("beta2", Wrong::Slot(|slot| slot.hyper.beta2 *= 0.9999)),
    ("eps", Wrong::Slot(|slot| slot.hyper.eps *= 1.001)),
    ("momentum", Wrong::Slot(|slot| slot.hyper.momentum *= 0.999)),
    ("lr_ratio", Wrong::Slot(|slot| slot.hyper.lr_ratio *= 1.001)),
    (
        "no decay",
        Wrong::Slot(|slot| slot.hyper.weight_decay = 0.0),
    ),
    (
        "W0 is left alone",
        Wrong::Slot(|slot| slot.hyper.decay_base = false),
    ),
    (
        "no update clip",
        Wrong::Slot(|slot| slot.hyper.update_clip = None),
    ),
    ("a stale state tensor", Wrong::Stale),
    (
        "the last column not written",
        Wrong::Factors(|_, j, old, new| if j == 0 { old } else { new }),
    ),
    (
        "one entry not written",
        Wrong::Factors(|i, j, old, new| if i + j == 0 { old } else { new }),
    ),
    (
        "an update longer by 1e-3",
        Wrong::Factors(|_, _, old, new| new + (new - old) * 1e-3),
    ),
];

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
            let finding = compare(&wrong(error), &case).expect("a comparison");
            seen += u32::from(!holds(finding.ratio));
        }
        println!("{name}: seen in {seen} of {} cases", CASES / 3);
        assert!(seen > 0, "{name} is not seen");
    }
}
