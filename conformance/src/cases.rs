//! Random cases: proptest strategies whose values are a few numbers and shrink toward plain ones.

use lora_pro_core::{DType, Method};
use proptest::prelude::*;
use proptest::sample::select;

use crate::laws::Applies;
use crate::methods::has_moments_of_e;
use crate::sample::{CaseSpec, Spectrum};

/// Condition numbers kappa up to where u kappa^2 = 1e-4, and up to 1 / u; as powers of 10.
///
/// The full and the factored mode apply the closed form to its own result. In a type shorter than
/// f64 nothing is left of that past u kappa^2 = 1, in any implementation.
fn decades(dtype: DType, method: Method) -> [f64; 2] {
    let digits = -dtype.unit_roundoff().log10();
    let twice = has_moments_of_e(method) && dtype != DType::F64;
    let most = if twice { digits / 2.0 } else { digits };
    [((digits - 4.0) / 2.0).max(0.5), most]
}

/// The cases of a law, half of them with moderate condition numbers.
pub fn cases(applies: Applies, dtype: DType, method: Method) -> BoxedStrategy<CaseSpec> {
    let [moderate, extreme] = decades(dtype, method);
    match applies {
        Applies::FullRank => prop_oneof![full_rank(moderate), full_rank(extreme)].boxed(),
        Applies::AnyRank => prop_oneof![any_rank(moderate), any_rank(extreme)].boxed(),
        Applies::Trajectory => {
            prop_oneof![early(moderate.min(2.0)), early(extreme.min(2.0))].boxed()
        }
    }
}

/// Of any rank, with condition numbers at which every step is well-posed.
pub fn moderate(dtype: DType) -> BoxedStrategy<CaseSpec> {
    any_rank(decades(dtype, Method::Sgd)[0]).boxed()
}

/// Cases of full rank: shapes from 1 x 1, r up to min(m, n), condition numbers up to `10^decades`,
/// trajectories of 1 to 30 steps.
pub fn full_rank(decades: f64) -> impl Strategy<Value = CaseSpec> {
    (1usize..=20, 1usize..=20)
        .prop_flat_map(|(m, n)| (Just(m), Just(n), rank(m.min(n))))
        .prop_flat_map(move |(m, n, r)| {
            let numbers = (
                0.0..decades,
                0.0..decades,
                -5.0..3.0,
                -5.0..3.0,
                -6.0..3.0,
                -1.0..1.5,
            );
            let steps = prop_oneof![8 => 1u64..=5, 1 => 6u64..=30];
            let kinds = (select(&Spectrum::ALL[..]), steps, any::<u64>());
            (numbers, kinds).prop_map(move |((ka, kb, a, b, g, s), (spectrum, steps, seed))| {
                CaseSpec {
                    m,
                    n,
                    r,
                    rank_a: r,
                    rank_b: r,
                    kappa_a: 10f64.powf(ka),
                    kappa_b: 10f64.powf(kb),
                    spectrum,
                    size_a: 10f64.powf(a),
                    size_b: 10f64.powf(b),
                    size_g: 10f64.powf(g),
                    s: 10f64.powf(s),
                    dtype: DType::F64,
                    steps,
                    seed,
                }
            })
        })
}

/// Any rank, and often the largest one.
fn rank(most: usize) -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1..=most, 1 => Just(most)]
}

/// As [`full_rank`], with any rank of A and of B from 0 (but not both 0) to r.
pub fn any_rank(decades: f64) -> impl Strategy<Value = CaseSpec> {
    full_rank(decades).prop_flat_map(|spec| {
        (0..=spec.r, 0..=spec.r)
            .prop_filter("an adapter of zeros cannot move", |(a, b)| a + b > 0)
            .prop_map(move |(rank_a, rank_b)| CaseSpec {
                rank_a,
                rank_b,
                ..spec
            })
    })
}

/// As training meets them: A of ordinary size and condition, B zero or as small as a first step.
pub fn early(decades: f64) -> impl Strategy<Value = CaseSpec> {
    (full_rank(decades), -5.0..-1.0, any::<bool>()).prop_map(|(spec, b, zero)| CaseSpec {
        size_a: 1.0,
        size_b: 10f64.powf(b),
        size_g: 1.0,
        rank_b: if zero { 0 } else { spec.r },
        ..spec
    })
}

/// Small, well-conditioned adapters of ordinary size: nothing that an implementation could stumble
/// over.
pub fn plain() -> BoxedStrategy<CaseSpec> {
    (2usize..=6, 2usize..=6, any::<u64>())
        .prop_flat_map(|(m, n, seed)| (Just(m), Just(n), 1..=m.min(n), Just(seed)))
        .prop_map(|(m, n, r, seed)| CaseSpec {
            m,
            n,
            r,
            rank_a: r,
            rank_b: r,
            seed,
            ..CaseSpec::default()
        })
        .boxed()
}
