//! Random cases for comparisons with the reference that are wilder than those of the check: any
//! condition number, longer sides, higher ranks, options that no case's seed draws together.

use lora_pro_core::{Config, DType, Damping, Hyper, Method, MomentDType, Rounding, XChoice};
use proptest::prelude::*;
use proptest::sample::select;

use crate::differential::Case;
use crate::sample::CaseSpec;

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

/// Adapters of all sizes and ranks, of condition numbers up to 1 / u.
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

/// Any method with any options.
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
        select(vec![Rounding::Nearest, Rounding::MasterCopy]),
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
        Hyper::default()
            .method(method)
            .x(x)
            .damping(damping)
            .lr(10f64.powf(lr))
            .lr_ratio(lr_ratio)
            .beta1(beta1)
            .beta2(beta2)
            .eps(eps)
            .weight_decay(if sgd { 0.0 } else { weight_decay })
            .decay_base(decay_base)
            .momentum(if sgd { beta1 } else { 0.0 })
            .amsgrad(amsgrad && !sgd)
            .maximize(maximize)
            .update_clip(update_clip)
            .moment_dtype(if full {
                moment_dtype
            } else {
                MomentDType::Auto
            })
            .rounding(rounding)
    })
}

/// Cases of one storage type, small and large, with any options.
pub fn cases(dtype: DType) -> impl Strategy<Value = Case> {
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
            config: Config::from(hyper).max_grad_norm(max_grad_norm),
            grad_scale,
            unpaired,
        },
    )
}
