//! Steps against the reference, each from identical bits, with a refused one before.

use lora_pro_conformance::differential::{Case, compare};
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{Config, DType, Damping, Hyper, Method, MomentDType, Schedule, XChoice};

use crate::battery::{cuda, next};
use crate::common::{METHODS, adapter, hyper};

/// What rounding explains, and not a multiple of it as for random cases: the kernels come to a tenth
/// of this.
const MOST: f64 = 1.0;

/// A case with a few words on what it is there for.
type Named = (&'static str, Case);

fn check(cases: Vec<Named>) {
    for (what, case) in cases {
        let CaseSpec { m, n, r, dtype, .. } = case.adapter;
        let name = format!("{what}: {} {m}x{n}x{r} {dtype}", case.config.hyper.method);
        next(&name);
        let found = compare(&cuda, &case).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(found.ratio < MOST, "{name}: {found:?}");
        assert_eq!(found.compared, case.steps, "{name}: {found:?}");
    }
}

fn plain(adapter: CaseSpec, method: Method) -> Case {
    let hyper = hyper(method).amsgrad(false);
    Case {
        adapter,
        config: hyper.into(),
        grad_scale: 1.0,
        steps: 2,
        unpaired: false,
    }
}

/// With everything that can be on.
fn rich(adapter: CaseSpec, method: Method) -> Case {
    let hyper = hyper(method)
        .maximize(true)
        .lr_ratio(4.0)
        .decay_base(true)
        .update_clip(Some(1e-3))
        .eps(1e-3);
    Case {
        config: Config::from(hyper)
            .max_grad_norm(Some(1e-2))
            .schedule(Schedule::Linear {
                warmup: 4,
                total: 100,
            }),
        grad_scale: 1.0 / 256.0,
        unpaired: true,
        ..plain(adapter, method)
    }
}

/// Every method, every storage type, every option.
pub fn small() {
    let mut cases = Vec::new();
    for method in METHODS {
        cases.push(("plain", plain(adapter(21, 70, 5, DType::F32), method)));
        cases.push(("r = 1", plain(adapter(7, 5, 1, DType::F64), method)));
    }
    for dtype in DType::PARAMETERS {
        for method in METHODS {
            cases.push(("rich", rich(adapter(45, 30, 9, dtype), method)));
        }
    }
    for method in METHODS {
        cases.extend(variants(method));
    }
    check(cases);
}

/// One thing different in each.
fn variants(method: Method) -> Vec<Named> {
    let with = |what, change: fn(&mut Case)| {
        let mut case = plain(adapter(12, 19, 4, DType::F64), method);
        change(&mut case);
        (what, case)
    };
    let mut all = vec![
        with("no damping", |case| hyper_of(case).damping = Damping::None),
        with("absolute damping", |case| {
            hyper_of(case).damping = Damping::Absolute(1e-3)
        }),
        with("cutoff", |case| {
            hyper_of(case).damping = Damping::Cutoff(1e-1)
        }),
        with("X = 0", |case| hyper_of(case).x = XChoice::Zero),
        with("symmetric X", |case| hyper_of(case).x = XChoice::Symmetric),
        with("B = 0", |case| case.adapter.rank_b = 0),
        with("B = 0 without damping", |case| {
            case.adapter.rank_b = 0;
            hyper_of(case).damping = Damping::None;
        }),
        with("A = 0 and B = 0", |case| {
            (case.adapter.rank_a, case.adapter.rank_b) = (0, 0);
        }),
        with("deficient", |case| {
            (case.adapter.rank_a, case.adapter.rank_b) = (3, 2);
            hyper_of(case).damping = Damping::None;
        }),
        with("a larger B", |case| {
            case.adapter.size_b = 20.0;
            hyper_of(case).update_clip = Some(1e-4);
        }),
    ];
    if method != Method::Sgd {
        all.push(with("moments that shrink", |case| {
            let hyper = hyper_of(case);
            (hyper.beta1, hyper.beta2, hyper.amsgrad) = (0.0, 0.1, true);
            case.steps = 3;
        }));
        // What comes out might overflow, as far as bounds go; it does not.
        all.push(with("near the overflow", |case| {
            case.unpaired = true;
            let hyper = hyper_of(case);
            (hyper.beta1, hyper.beta2, hyper.decay_base) = (0.9, 0.0, true);
        }));
    }
    if method == Method::Full {
        all.push(with("bf16 moments", |case| {
            hyper_of(case).moment_dtype = MomentDType::Bf16
        }));
        all.push(with("f32 moments", |case| {
            hyper_of(case).moment_dtype = MomentDType::F32
        }));
        all.push(with("f64 moments", |case| {
            case.adapter.dtype = DType::F32;
            hyper_of(case).moment_dtype = MomentDType::F64;
        }));
    }
    all
}

fn hyper_of(case: &mut Case) -> &mut Hyper {
    &mut case.config.hyper
}

/// More than one tile, chunk, strip and group; ranks that do not fit.
pub fn large() {
    let shapes = [
        ("tiles and strips", (70, 300, 8)),
        ("chunks of A", (12, 1100, 9)),
        ("chunks of B", (1100, 12, 9)),
        ("groups and strips", (500, 260, 6)),
        ("more ranks than registers", (60, 70, 33)),
        ("a decomposition in memory", (52, 60, 49)),
    ];
    let mut cases = Vec::new();
    for (what, (m, n, r)) in shapes {
        for method in METHODS {
            for dtype in [DType::F32, DType::F64] {
                let case = rich(adapter(m, n, r, dtype), method);
                // The third step is the second of its backend: sums of one may go on in the next.
                let steps = if r == 33 { 3 } else { 1 };
                cases.push((what, Case { steps, ..case }));
            }
        }
    }
    // A parameter of more than one chunk.
    cases.push((
        "a long parameter",
        rich(adapter(4200, 2, 1, DType::F32), Method::Lora),
    ));
    check(cases);
}
