//! The sizes below which a step cannot overflow.
//!
//! A step must write all or nothing, and the passes write as they go. Bounds from norms show that
//! nothing comes near to the largest number; what they do not show it for is stepped first, with a
//! snapshot to go back to. So a limit may be generous: one that is too low costs time, not
//! correctness.

use lora_pro_core::{DType, Hyper};

/// A bound on the entries of N: `k |M| / sqrt(V)` is at most
/// `(1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2))` = 7.3 for the usual betas, before bias correction.
pub(crate) const N_BOUND: f64 = 10.0;

/// Norms up to which results are finite.
#[derive(Clone, Copy)]
pub(crate) struct OverflowLimits {
    /// Of gradients and directions, which are squared in the type that is computed in.
    pub(crate) computed: f64,
    /// Of parameters after the step, in the type that they are stored in.
    pub(crate) stored: f64,
}

impl OverflowLimits {
    pub(crate) fn of(in_f64: bool, dtype: DType) -> Self {
        OverflowLimits {
            computed: if in_f64 { F64 } else { F32_SQUARED },
            stored: match (dtype, in_f64) {
                (DType::F16, _) => F16_STORED,
                (DType::F64, true) => F64,
                _ => F32_STORED,
            },
        }
    }
}

/// The square, 1e34, leaves a factor of 3e4 below f32's largest number, 3.4e38, for what squares
/// are multiplied by and for sums over the rank.
const F32_SQUARED: f64 = 1e17;

/// A factor of 3e8 below the largest number of f32 and bf16, for an N beyond [`N_BOUND`] (see
/// [`adam_is_bounded`]).
const F32_STORED: f64 = 1e30;

/// Less than half of f16's largest number, 65504: what is rounded up stays finite.
const F16_STORED: f64 = 3e4;

/// The square, 1e240, is far below f64's largest number, 1.8e308, and so is a product of r x r
/// matrices with two more factors of 1e30.
const F64: f64 = 1e120;

/// Whether N stays of the order of 1: where a moment's square decays no slower than its mean, and
/// where eps, in f32, is not so small that an underflow of V leaves M undivided. V is 0 for entries
/// below 4e-23 (f32's smallest number is 1.4e-45); over eps = 1e-30 they give an N of at most 4e7,
/// which [`F32_STORED`] allows for.
pub(crate) fn adam_is_bounded(hyper: &Hyper, in_f64: bool) -> bool {
    betas_bound_n(hyper) && eps_bounds_n(hyper, in_f64)
}

pub(crate) fn betas_bound_n(hyper: &Hyper) -> bool {
    hyper.beta1 == 0.0 || hyper.beta1 * hyper.beta1 < hyper.beta2
}

pub(crate) fn eps_bounds_n(hyper: &Hyper, in_f64: bool) -> bool {
    in_f64 || hyper.eps > 1e-30
}
