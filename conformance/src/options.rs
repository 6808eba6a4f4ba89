//! Options of a comparison with the reference. They follow from the case's seed, so that a case
//! remains a few numbers.

use lora_pro_core::{
    Config, DType, Damping, Error, Hyper, Method, MomentDType, OnNonFinite, Rounding, Schedule,
    XChoice,
};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::differential::{self, Case, Finding};
use crate::methods::has_moments;
use crate::sample::CaseSpec;
use crate::subject::Subject;

/// Large adapters and long runs are left to tests of their own.
const STEPS: u64 = 8;

/// The subject against the reference, with the case's options.
///
/// # Errors
/// As [`differential::compare`].
pub fn compare(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<Finding, Error> {
    let case = sampled(spec, method);
    supported(subject, &case)?;
    let make = || subject.backend();
    differential::compare(&make, &case)
}

/// Options that the front refuses for this backend are not its fault.
fn supported(subject: &Subject, case: &Case) -> Result<(), Error> {
    let manifest = subject.backend().manifest();
    let hyper = &case.config.hyper;
    let moments = match hyper.moment_dtype {
        MomentDType::Bf16 => Some(DType::Bf16),
        MomentDType::F64 => Some(DType::F64),
        MomentDType::F32 => Some(DType::F32),
        _ => None,
    };
    let missing = |what: String| {
        Err(Error::Unsupported {
            subject: "adapter `adapter`".into(),
            backend: manifest.name.clone(),
            what,
        })
    };
    if let Some(dtype) = moments.filter(|dtype| !manifest.state_dtypes.contains(dtype)) {
        return missing(format!("{dtype} moments"));
    }
    if !manifest.roundings.contains(&hyper.rounding) {
        return missing(format!("{} rounding", hyper.rounding));
    }
    Ok(())
}

const SCHEDULE: Schedule = Schedule::Cosine {
    warmup: 2,
    total: 12,
};

/// A law's case with the options that follow from its seed.
pub fn sampled(spec: &CaseSpec, method: Method) -> Case {
    // The extreme sizes of the laws' cases would only overflow.
    let moderate = |size: f64| size.clamp(1e-3, 10.0);
    let adapter = CaseSpec {
        size_a: moderate(spec.size_a),
        size_b: moderate(spec.size_b),
        size_g: moderate(spec.size_g),
        steps: spec.steps.min(STEPS),
        ..*spec
    };
    with_options(adapter, method)
}

/// A case with the options that follow from its seed.
pub fn with_options(adapter: CaseSpec, method: Method) -> Case {
    let mut random = adapter.random(500);
    let hyper = hyper(&mut random, adapter.dtype, method);
    let config = Config::from(hyper)
        .max_grad_norm(pick(&mut random, &[None, Some(1e-2), Some(10.0)]))
        .schedule(pick(&mut random, &[Schedule::Constant, SCHEDULE]))
        .on_non_finite(pick(&mut random, &[OnNonFinite::Error, OnNonFinite::Skip]));
    Case {
        steps: adapter.steps,
        config,
        grad_scale: pick(&mut random, &[1.0, 1.0 / 256.0, 1e-3]),
        unpaired: random.random(),
        adapter,
    }
}

fn hyper(random: &mut ChaCha8Rng, dtype: DType, method: Method) -> Hyper {
    let adaptive = has_moments(method);
    let moments = [
        MomentDType::Auto,
        MomentDType::F32,
        MomentDType::F64,
        MomentDType::Bf16,
    ];
    let dampings = [
        Damping::None,
        Damping::Absolute(1e-8),
        Damping::Absolute(1e-3),
        Damping::Relative(1e-4),
        Damping::Cutoff(1e-6),
    ];
    let short = matches!(dtype, DType::Bf16 | DType::F16);
    let hyper = Hyper::default()
        .method(method)
        .x(pick(
            random,
            &[XChoice::Sylvester, XChoice::Symmetric, XChoice::Zero],
        ))
        .damping(pick(random, &dampings))
        .lr(10f64.powf(random.random_range(-5.0..-1.0)))
        .lr_ratio(pick(random, &[1.0, 4.0]))
        .beta1(pick(random, &[0.0, 0.5, 0.9]))
        .beta2(pick(random, &[0.0, 0.9, 0.999]))
        .eps(pick(random, &[1e-8, 1e-3, 1.0]))
        .weight_decay(if adaptive {
            pick(random, &[0.0, 0.1])
        } else {
            0.0
        });
    // Without decay the option has nothing to say, and a subject that does not have it loses the case.
    let decay_base = random.random::<bool>() && hyper.weight_decay > 0.0;
    hyper
        .decay_base(decay_base)
        .momentum(if adaptive {
            0.0
        } else {
            pick(random, &[0.0, 0.9])
        })
        .amsgrad(adaptive && random.random())
        .maximize(random.random())
        .update_clip(pick(random, &[None, Some(1e-3), Some(0.3)]))
        .moment_dtype(match method {
            Method::Full => pick(random, &moments),
            Method::Lora | Method::Sgd | Method::Efficient | Method::Factored => MomentDType::Auto,
        })
        .rounding(match short {
            true => pick(random, &[Rounding::Nearest, Rounding::MasterCopy]),
            false => Rounding::Nearest,
        })
}

/// One of several; the lists here are never empty.
fn pick<T: Copy>(random: &mut ChaCha8Rng, all: &[T]) -> T {
    *all.choose(random).unwrap_or(&all[0])
}

/// Every option that a coverage table lists, met or not.
pub const FEATURES: [&str; 25] = [
    "x/sylvester",
    "x/symmetric",
    "x/zero",
    "damping/none",
    "damping/absolute",
    "damping/relative",
    "damping/cutoff",
    "moments/auto",
    "moments/f32",
    "moments/f64",
    "moments/bf16",
    "option/weight decay",
    "option/decay of W0",
    "option/momentum",
    "option/amsgrad",
    "option/maximize",
    "option/update clip",
    "option/gradient clip",
    "option/schedule",
    "option/loss scale",
    "option/unpaired parameter",
    "option/learning-rate ratio",
    "option/no memory (b1 = b2 = 0)",
    "option/eps that matters",
    "option/master copies",
];

/// The options of a case; all of them are in [`FEATURES`].
pub fn features(spec: &CaseSpec, method: Method) -> Vec<String> {
    let case = sampled(spec, method);
    let hyper = &case.config.hyper;
    let damping = match hyper.damping {
        Damping::None => "none",
        Damping::Absolute(_) => "absolute",
        Damping::Relative(_) => "relative",
        Damping::Cutoff(_) => "cutoff",
    };
    let flags = [
        ("weight decay", hyper.weight_decay > 0.0),
        ("decay of W0", hyper.decay_base && hyper.weight_decay > 0.0),
        ("momentum", hyper.momentum > 0.0),
        ("amsgrad", hyper.amsgrad),
        ("maximize", hyper.maximize),
        ("update clip", hyper.update_clip.is_some()),
        ("gradient clip", case.config.max_grad_norm.is_some()),
        ("schedule", case.config.schedule != Schedule::Constant),
        ("loss scale", case.grad_scale != 1.0),
        ("unpaired parameter", case.unpaired),
        ("learning-rate ratio", hyper.lr_ratio != 1.0),
        (
            "no memory (b1 = b2 = 0)",
            hyper.beta1 == 0.0 && hyper.beta2 == 0.0,
        ),
        ("eps that matters", hyper.eps > 1e-4),
        ("master copies", hyper.rounding == Rounding::MasterCopy),
    ];
    let flags = flags.into_iter().filter(|(_, on)| *on);
    let named = [
        format!("x/{}", hyper.x),
        format!("damping/{damping}"),
        format!("moments/{}", hyper.moment_dtype),
    ];
    named
        .into_iter()
        .chain(flags.map(|(name, _)| format!("option/{name}")))
        .collect()
}
