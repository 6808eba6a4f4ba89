//! A failing case made plain: smaller, better conditioned, of size 1, in fewer steps.
//!
//! Every field moves toward the plainest value, far at first and then in smaller steps, as long as
//! the case still fails. (proptest shrinks each number where it was drawn, and so cannot make a
//! matrix smaller once its rank is drawn.)

use crate::sample::{CaseSpec, Spectrum};

/// Cases tried at most.
const TRIES: usize = 400;

/// The plainest case that still fails.
pub(crate) fn shrink(case: &CaseSpec, fails: impl Fn(&CaseSpec) -> bool) -> CaseSpec {
    let mut plain = *case;
    let mut tries = 0;
    loop {
        let next = candidates(&plain).into_iter().find(|candidate| {
            tries += 1;
            tries <= TRIES && fails(candidate)
        });
        match next {
            Some(next) => plain = next,
            None => return plain,
        }
    }
}

/// Plainer cases, the plainest first; each differs from the case.
fn candidates(case: &CaseSpec) -> Vec<CaseSpec> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut CaseSpec)| {
        let mut other = *case;
        change(&mut other);
        if other != *case {
            all.push(other);
        }
    };
    for r in smaller(case.r, 1) {
        with(&|case| {
            (case.r, case.rank_a, case.rank_b) = (r, case.rank_a.min(r), case.rank_b.min(r));
        });
    }
    for m in smaller(case.m, case.r) {
        with(&|case| case.m = m);
    }
    for n in smaller(case.n, case.r) {
        with(&|case| case.n = n);
    }
    for steps in smaller(case.steps as usize, 1) {
        with(&|case| case.steps = steps as u64);
    }
    with(&|case| case.rank_a = case.r);
    with(&|case| case.rank_b = case.r);
    with(&|case| case.spectrum = Spectrum::Geometric);
    for root in [0.0, 0.5, 0.9] {
        with(&|case| case.kappa_a = case.kappa_a.powf(root));
        with(&|case| case.kappa_b = case.kappa_b.powf(root));
        with(&|case| case.size_a = nearer_1(case.size_a, root));
        with(&|case| case.size_b = nearer_1(case.size_b, root));
        with(&|case| case.size_g = nearer_1(case.size_g, root));
        with(&|case| case.s = nearer_1(case.s, root));
    }
    for seed in [0, 1, 2].into_iter().take_while(|seed| *seed < case.seed) {
        with(&|case| case.seed = seed);
    }
    all
}

/// From the least upward.
fn smaller(now: usize, least: usize) -> Vec<usize> {
    let mut all = vec![least, (now + least) / 2, now.saturating_sub(1)];
    all.retain(|other| (least..now).contains(other));
    all.dedup();
    all
}

/// A power of a number, and 1 where that is near.
fn nearer_1(x: f64, root: f64) -> f64 {
    let power = x.powf(root);
    if (power - 1.0).abs() < 0.05 {
        1.0
    } else {
        power
    }
}
