//! Whether a step can overflow what it computes in or what it is stored in.
//!
//! A step must write all or nothing, and the passes write as they go. Bounds from r x r norms show
//! that nothing comes near to the largest number; an adapter for which they do not is stepped first,
//! with a copy to go back to.

use lora_pro_core::backend::AdapterSlot;
use lora_pro_core::{DType, Method};

use super::{PairWork, Setting, in_f64};
use crate::small::{norm, trace};

/// An entry of N has the order of 1: k M / sqrt(V) is at most
/// (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)) = 7.3 for the usual betas, before bias correction.
const N: f64 = 10.0;

impl PairWork {
    pub(super) fn may_overflow(&self, slot: &AdapterSlot, setting: &Setting) -> bool {
        let (spec, hyper, s) = (&slot.spec, &slot.hyper, slot.spec.s());
        let [a, b] = self.factor_norms();
        let solved = &self.solved;
        // |U| + |V| (for plain LoRA s |gA| + s |gB|), and what X and Q add.
        let parts = solved.hh.each_ref().map(|hh| trace(hh).max(0.0).sqrt() / s);
        let inner = match hyper.method {
            Method::Lora => 0.0,
            _ => norm(&solved.x) * (a + b) + norm(&solved.q) * b,
        };
        let adjusted = parts[0] + parts[1] + inner;
        let direction = match hyper.method {
            Method::Lora | Method::Efficient => N,
            Method::Sgd => adjusted / (1.0 - hyper.momentum),
            Method::Factored | Method::Full => {
                // |B SB^+| is at most |SB^+|^(1/2), so |U| is at most that times |N| / s; and with X
                // the pair is at most as far from (gA, gB) as without.
                let n = N * ((spec.m * spec.n) as f64).sqrt();
                let roots: f64 = solved.plus.iter().map(|plus| norm(plus).sqrt()).sum();
                4.0 * n * (s * (a + b) + roots / s)
            }
        };
        let lr = hyper.lr * setting.lr_factor * hyper.lr_ratio.max(1.0);
        let stored = a + b + lr * direction;

        let (computes, stores) = match (in_f64(slot), spec.dtype) {
            (true, DType::F64) => (1e120, 1e120),
            (true, DType::F16) => (1e120, 3e4),
            (false, DType::F16) => (1e17, 3e4),
            (true, _) => (1e120, 1e30),
            (false, _) => (1e17, 1e30),
        };
        // N stays of the order of 1 where a moment's square decays no slower than its mean.
        let tame = hyper.beta1 == 0.0 || hyper.beta1 * hyper.beta1 < hyper.beta2;
        let certain = adjusted < computes
            && direction < computes
            && self.equivalent_norm < computes
            && stored < stores
            && (tame || hyper.method == Method::Sgd)
            && (in_f64(slot) || hyper.eps > 1e-30);
        !certain
    }
}
