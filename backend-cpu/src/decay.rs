//! Decoupled weight decay.

use lora_pro_core::{Hyper, Method};

use crate::rounding::Round;
use crate::simd::{Isa, Real, Strip};
use crate::simd_level::{Kernel, SimdLevel};
use crate::view::ViewMut;

/// What A and B are multiplied by, by side.
pub(crate) fn of_factors(hyper: &Hyper, lr: f64) -> [f64; 2] {
    match hyper.method {
        // B A as a whole is to decay by 1 - lr w.
        Method::Full | Method::Factored => [one_minus_lr_w(hyper, lr).sqrt(); 2],
        Method::Lora | Method::Sgd | Method::Efficient => {
            [lr, lr * hyper.lr_ratio].map(|lr| one_minus_lr_w(hyper, lr))
        }
    }
}

/// What W0 is multiplied by where `decay_base` is set, and an unpaired parameter always.
pub(crate) fn one_minus_lr_w(hyper: &Hyper, lr: f64) -> f64 {
    1.0 - lr * hyper.weight_decay
}

/// Multiplies W0 by a factor, rounded to its storage type.
pub(crate) fn decay_base(level: SimdLevel, w0: ViewMut<'_>, factor: f64) {
    level.run(DecayBase { w0, factor });
}

struct DecayBase<'k> {
    w0: ViewMut<'k>,
    factor: f64,
}

impl Kernel for DecayBase<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let DecayBase { mut w0, factor } = self;
        let factor = <f64 as Real>::splat(simd, factor);
        let mut strip = [Strip::all(0.0f64)];
        for row in 0..w0.as_ref().rows() {
            for tile in 0..w0.as_ref().tiles() {
                w0.as_ref().load(simd, row..row + 1, tile, &mut strip);
                for x in <f64 as Real>::vectors_mut::<S>(&mut strip[0]) {
                    *x = <f64 as Real>::mul(simd, factor, *x);
                }
                w0.store(simd, row..row + 1, tile, &strip, Round::Nearest);
            }
        }
    }
}
