//! Random cases for comparisons with the reference that go farther than those of the check: any
//! condition number, longer sides, higher ranks.

use lora_pro_core::DType;
use proptest::prelude::*;
use proptest::sample::select;

use crate::differential::Case;
use crate::laws::METHODS;
use crate::options::with_options;
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

/// Cases of one storage type, small and large, of any method with any options.
pub fn cases(dtype: DType) -> impl Strategy<Value = Case> {
    let steps = prop_oneof![6 => 1u64..=3, 2 => 4u64..=8, 1 => 20u64..=30];
    (adapters(dtype), select(&METHODS[..]), steps).prop_map(|(mut adapter, method, steps)| {
        // A large adapter is followed for a few steps only.
        let large = adapter.m * adapter.n * adapter.r > 100_000;
        adapter.steps = if large { steps.min(2) } else { steps };
        with_options(adapter, method)
    })
}
