//! Hyper-parameters, with core's enums as the kernels' numbers.

use lora_pro_core::{Damping, Hyper, Method, Rounding, XChoice};

use crate::constants as code;
use crate::model::{self, Precision};

pub(super) fn hyper(of: &Hyper, precision: Precision) -> model::Hyper {
    let (damping_kind, damping) = match of.damping {
        Damping::None => (code::NONE, 0.0),
        Damping::Absolute(d) => (code::ABSOLUTE, d),
        Damping::Relative(c) => (code::RELATIVE, c),
        Damping::Cutoff(c) => (code::CUTOFF, c),
    };
    model::Hyper {
        lr: of.lr,
        lr_ratio: of.lr_ratio,
        beta1: of.beta1,
        beta2: of.beta2,
        eps: of.eps,
        weight_decay: of.weight_decay,
        momentum: of.momentum,
        damping,
        update_clip: of.update_clip.unwrap_or(0.0),
        method: match of.method {
            Method::Lora => code::LORA,
            Method::Sgd => code::SGD,
            Method::Efficient => code::EFFICIENT,
            Method::Factored => code::FACTORED,
            Method::Full => code::FULL,
        },
        x: match of.x {
            XChoice::Sylvester => code::SYLVESTER,
            XChoice::Symmetric => code::SYMMETRIC,
            XChoice::Zero => code::ZERO,
        },
        damping_kind,
        maximize: i32::from(of.maximize),
        stochastic: i32::from(of.rounding == Rounding::Stochastic),
        in_f64: i32::from(precision == Precision::F64),
    }
}

/// FNV-1a: what an adapter's random numbers follow from.
pub(super) fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
