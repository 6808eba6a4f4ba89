//! Whether an adapter's step is at risk of an overflow in what it computes in or is stored in.

use lora_pro_core::Method;
use lora_pro_core::backend::AdapterSlot;

use super::{AdapterWork, StepFactors, in_f64};
use crate::overflow::{N_BOUND, OverflowLimits, adam_is_bounded, eps_bounds_n};
use crate::rank_sized::{norm, trace};

impl AdapterWork {
    /// False where r x r norms exclude an overflow. A norm that is itself infinite or NaN excludes
    /// nothing.
    pub(super) fn overflow_is_possible(&self, slot: &AdapterSlot, factors: &StepFactors) -> bool {
        let (spec, hyper, s) = (&slot.spec, &slot.hyper, slot.spec.s());
        let [a, b] = self.factor_norms();
        // |U| + |V| (for plain LoRA s |gA| + s |gB|), and what X and Q add.
        let [u, v] = self
            .equivalent
            .each_ref()
            .map(|part| trace(&part.hh).max(0.0).sqrt() / s);
        let inner = || norm(&self.terms.x) * (a + b) + norm(&self.terms.q) * b;
        let adjusted = match hyper.method {
            Method::Lora => u + v,
            Method::Sgd | Method::Efficient | Method::Factored | Method::Full => u + v + inner(),
        };
        let direction = match hyper.method {
            Method::Lora | Method::Efficient => N_BOUND,
            Method::Sgd => adjusted / (1.0 - hyper.momentum),
            Method::Factored | Method::Full => {
                // |B SB^+| is at most |SB^+|^(1/2), so |U| is at most that times |N| / s; and with X
                // (dA, dB) are at most as far from (gA, gB) as without.
                let n = N_BOUND * ((spec.m * spec.n) as f64).sqrt();
                let roots = self
                    .inverses
                    .0
                    .iter()
                    .map(|gram| norm(&gram.inverse).sqrt());
                4.0 * n * (s * (a + b) + roots.sum::<f64>() / s)
            }
        };
        let lr = hyper.lr * factors.lr_factor * hyper.lr_ratio.max(1.0);
        let stored = a + b + lr * direction;

        let limits = OverflowLimits::of(in_f64(slot), spec.dtype);
        let bounded = match hyper.method {
            Method::Sgd => eps_bounds_n(hyper, in_f64(slot)),
            Method::Lora | Method::Efficient | Method::Factored | Method::Full => {
                adam_is_bounded(hyper, in_f64(slot))
            }
        };
        let excluded = adjusted < limits.computed
            && direction < limits.computed
            && self.equivalent_norm < limits.computed
            && stored < limits.stored
            && bounded;
        !excluded
    }
}
