//! The decay of W0, on request.

use crate::pair::PairViews;
use crate::path::{Job, Path};
use crate::rounding::Round;
use crate::simd::{Isa, Real, Strip};
use crate::view::View;

/// Multiplies W0 by a factor, as its storage type rounds it.
pub(crate) fn shrink(path: Path, views: &PairViews, factor: f64) {
    if let Some(base) = views.base {
        path.run(Shrink { base, factor });
    }
}

struct Shrink {
    base: View,
    factor: f64,
}

impl Job for Shrink {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Shrink { base, factor } = self;
        let factor = <f64 as Real>::splat(simd, factor);
        let mut strip = [Strip::all(0.0f64)];
        for row in 0..base.rows {
            for tile in 0..base.tiles() {
                base.load(simd, row..row + 1, tile, &mut strip);
                for x in <f64 as Real>::vectors_mut::<S>(&mut strip[0]) {
                    *x = <f64 as Real>::mul(simd, factor, *x);
                }
                base.store(simd, row..row + 1, tile, &strip, Round::Nearest);
            }
        }
    }
}
