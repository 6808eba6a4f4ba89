//! The thin passes of the factored mode. With H = (sU, sV') a side's part of E:
//!
//! ```text
//! update_moments:  H = Hg G + Hf F
//!                  sq <- b2 sq + (1 - b2) mean of E.E over the other dimension, from [H; F] and r x r
//!                  Y  <- b1 Y + (1 - b1) H
//!                  w  = a or b of N = Da (M / c1) Db;   F w [F; Y]'  in f64
//! update_factor:   D  = (Ty Y + Tf F) w + Tx F;  F1 = decay F - lr D;   F1 [F1; F; Y]'  in f64
//! transport:       Y <- Ty Y + Tf F + T1 F1;  F <- F1
//! ```
//!
//! Side 1 holds B' and Z'. Nothing but the state and F is written that grows with m or n, besides
//! copies of F, F1 and w in scratch memory, which stay in cache.

use std::ops::Range;

use super::thin::{ThinInput, keep_master, widen};
use super::tile_pass::TilePass;
use super::update::subtract_update;
use crate::kernels::{gathered, gram, product};
use crate::panel::Panel;
use crate::parallel::{CHUNK, ParallelCtx, Strips, splittable};
use crate::rounding::Round;
use crate::simd::{Isa, Real, Strip, WIDTH};
use crate::typed_state::TangentState;
use crate::view::ViewMut;
use crate::workspace::{
    EquivalentCoefficients, FactorUpdateCoefficients, SquareCoefficients, Sum, ThreadWorkspace,
    TransportCoefficients, padded, sums, total,
};

/// What the moment pass reads.
pub(crate) struct MomentUpdate<'a, T> {
    pub(crate) f: ThinInput<'a, T>,
    pub(crate) g: ThinInput<'a, T>,
    pub(crate) equivalent: &'a EquivalentCoefficients<T>,
    /// Whether H has a term of F: on side 1.
    pub(crate) has_f_term: bool,
    pub(crate) square: &'a SquareCoefficients<T>,
    /// 1 / the other dimension.
    pub(crate) share: T,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    /// `w = weight / (sqrt(sq) + eps)`.
    pub(crate) weight: T,
    pub(crate) eps: T,
}

/// Updates the moments; leaves F in `old` and w in `weights`. Returns `F w [F; Y]'` (r x 2r) and
/// the sum of the means (the largest, with AMSGrad).
pub(crate) fn update_moments<'s, T: Real>(
    ctx: &ParallelCtx<'_, T>,
    all: &'s mut Vec<Sum>,
    state: &mut TangentState<'_, T>,
    [old, weights]: [&mut Panel<T>; 2],
    pass: &MomentUpdate<'_, T>,
) -> &'s Sum {
    let [r, len] = pass.f.shape();
    old.reshape(r, len);
    weights.reshape(1, len);
    let tiles = len.div_ceil(WIDTH);
    let sums = sums(all, tiles.div_ceil(CHUNK), 2 * r * r);
    let parts = MomentParts {
        sums: &mut *sums,
        y: Strips::of(state.y),
        means: Strips::of(state.means),
        max_means: state.max_means.as_deref_mut().map(Strips::of),
        old: Strips::of(old),
        weights: Strips::of(weights),
    };
    ctx.run(pass, r, tiles, parts);
    total(sums)
}

/// What a part of the moment pass writes.
pub(crate) struct MomentParts<'k, T> {
    sums: &'k mut [Sum],
    y: Strips<'k, T>,
    means: Strips<'k, T>,
    max_means: Option<Strips<'k, T>>,
    old: Strips<'k, T>,
    weights: Strips<'k, T>,
}

splittable!([T: Real] MomentParts<'_, T> { sums, y, means, max_means, old, weights });

impl<T: Real> TilePass<T> for MomentUpdate<'_, T> {
    type Parts<'k> = MomentParts<'k, T>;

    #[inline(always)]
    fn run<S: Isa>(
        &self,
        simd: S,
        parts: Self::Parts<'_>,
        range: Range<usize>,
        workspace: &mut ThreadWorkspace<T>,
    ) {
        let MomentParts {
            sums,
            mut y,
            mut means,
            mut max_means,
            mut old,
            mut weights,
        } = parts;
        let sum = &mut sums[0];
        let r = self.f.shape()[0];
        let (pad, stacked, count) = (padded(r), padded(2 * r), range.len());
        let ThreadWorkspace {
            f,
            g,
            d: h,
            spare,
            left,
            right,
            grams,
            ..
        } = workspace;
        grams.reset(r, 2 * r, r);
        for (local, tile) in range.enumerate() {
            self.f.load(simd, tile, f);
            self.g.load(simd, tile, g);
            old.tile(local).copy_from_slice(&f[..r]);
            equivalent_part(
                simd,
                self.equivalent,
                self.has_f_term,
                &g[..r],
                &f[..r],
                &mut h[..pad],
            );

            let square = self.square;
            let (first, second) = spare.split_at_mut(pad);
            product(
                simd,
                first,
                false,
                [(&square.g, &g[..r]), (&square.f, &f[..r])],
            );
            product(simd, &mut second[..pad], false, [(&square.k, &f[..r])]);
            let sq = &mut means.tile(local)[0];
            let (plus, minus) = second[..r].split_at(square.positive);
            average_squares(simd, sq, [&first[..r], plus], minus, self.share, self.beta2);

            let mut divisor = *sq;
            if let Some(max_means) = &mut max_means {
                let largest = &mut max_means.tile(local)[0];
                keep_largest(simd, largest, sq);
                divisor = *largest;
            }
            sum.scalar += divisor.iter().map(|x| x.wide()).sum::<f64>();
            let w = &mut weights.tile(local)[0];
            weights_of_n(simd, w, &divisor, self.weight, self.eps);

            let y = y.tile(local);
            for (y, h) in y.iter_mut().zip(&h[..r]) {
                running_mean(simd, y, h, self.beta1);
            }
            let at = local % gathered(r);
            let operands = &mut right[at * stacked..][..stacked];
            widen(&mut operands[..r], &f[..r]);
            widen(&mut operands[r..], y);
            for f in &mut f[..r] {
                multiply(simd, f, w);
            }
            widen(&mut left[at * pad..][..pad], &f[..r]);
            if at + 1 == gathered(r) || local + 1 == count {
                let operands = &right[..(at + 1) * stacked];
                gram(simd, grams, &left[..(at + 1) * pad], operands);
            }
        }
        for (at, x) in sum.products.iter_mut().enumerate() {
            *x = grams.entry(at / (2 * r), at % (2 * r));
        }
    }
}

/// `H = Hg G + Hf F`.
#[inline(always)]
pub(super) fn equivalent_part<S: Isa, T: Real>(
    simd: S,
    coefficients: &EquivalentCoefficients<T>,
    has_f_term: bool,
    g: &[Strip<T>],
    f: &[Strip<T>],
    h: &mut [Strip<T>],
) {
    let g_term = (&coefficients.g, g);
    if has_f_term {
        product(simd, h, false, [g_term, (&coefficients.f, f)]);
    } else {
        product(simd, h, false, [g_term]);
    }
}

/// `mean <- beta mean + (1 - beta) x`.
#[inline(always)]
fn running_mean<S: Isa, T: Real>(simd: S, mean: &mut Strip<T>, x: &Strip<T>, beta: f64) {
    let (keep, new) = (
        T::splat(simd, T::of(beta)),
        T::splat(simd, T::of(1.0 - beta)),
    );
    for (mean, x) in T::vectors_mut::<S>(mean).iter_mut().zip(T::vectors::<S>(x)) {
        *mean = T::mul_add(simd, new, *x, T::mul(simd, keep, *mean));
    }
}

/// Averages `share * (sum_k x_k^2 - sum_k z_k^2)` into the means, where it is not negative: it is a
/// square, up to rounding.
#[inline(always)]
fn average_squares<S: Isa, T: Real>(
    simd: S,
    sq: &mut Strip<T>,
    x: [&[Strip<T>]; 2],
    z: &[Strip<T>],
    share: T,
    beta2: f64,
) {
    let mut square = Strip::all(T::default());
    let minus = T::splat(simd, T::of(-1.0));
    for x in x.into_iter().flatten() {
        let vectors = T::vectors_mut::<S>(&mut square).iter_mut();
        for (square, x) in vectors.zip(T::vectors::<S>(x)) {
            *square = T::mul_add(simd, *x, *x, *square);
        }
    }
    for z in z {
        let vectors = T::vectors_mut::<S>(&mut square).iter_mut();
        for (square, z) in vectors.zip(T::vectors::<S>(z)) {
            *square = T::mul_add(simd, T::mul(simd, minus, *z), *z, *square);
        }
    }
    // (x + |x|) / 2, and not max(x, 0): a NaN must stay one, for the check after a step at risk.
    let half = T::splat(simd, T::of(0.5 * share.wide()));
    for square in T::vectors_mut::<S>(&mut square) {
        let size = T::max(simd, *square, T::mul(simd, minus, *square));
        *square = T::mul(simd, half, T::add(simd, *square, size));
    }
    running_mean(simd, sq, &square, beta2);
}

/// `largest <- max(largest, x)`.
#[inline(always)]
fn keep_largest<S: Isa, T: Real>(simd: S, largest: &mut Strip<T>, x: &Strip<T>) {
    for (largest, x) in T::vectors_mut::<S>(largest)
        .iter_mut()
        .zip(T::vectors::<S>(x))
    {
        *largest = T::max(simd, *largest, *x);
    }
}

/// `w = weight / (sqrt(sq) + eps)`.
#[inline(always)]
fn weights_of_n<S: Isa, T: Real>(simd: S, w: &mut Strip<T>, sq: &Strip<T>, weight: T, eps: T) {
    let (weight, eps) = (T::splat(simd, weight), T::splat(simd, eps));
    for (w, sq) in T::vectors_mut::<S>(w).iter_mut().zip(T::vectors::<S>(sq)) {
        *w = T::div(simd, weight, T::add(simd, T::sqrt(simd, *sq), eps));
    }
}

/// `x <- x w`, entry by entry.
#[inline(always)]
fn multiply<S: Isa, T: Real>(simd: S, x: &mut Strip<T>, w: &Strip<T>) {
    for (x, w) in T::vectors_mut::<S>(x).iter_mut().zip(T::vectors::<S>(w)) {
        *x = T::mul(simd, *x, *w);
    }
}

/// What the factor update reads.
pub(crate) struct FactorUpdate<'a, T> {
    pub(crate) y: &'a Panel<T>,
    pub(crate) f: &'a Panel<T>,
    pub(crate) weights: &'a Panel<T>,
    pub(crate) coefficients: &'a FactorUpdateCoefficients<T>,
    pub(crate) decay: T,
    /// The learning rate, times the update clip.
    pub(crate) lr: T,
}

/// Leaves F1 in `new`. Returns `F1 [F1; F; Y]'` (r x 3r) and `|lr D|^2`.
pub(crate) fn update_factor<'s, T: Real>(
    ctx: &ParallelCtx<'_, T>,
    all: &'s mut Vec<Sum>,
    new: &mut Panel<T>,
    pass: &FactorUpdate<'_, T>,
) -> &'s Sum {
    let (r, len) = (pass.f.rows, pass.f.len);
    new.reshape(r, len);
    let tiles = len.div_ceil(WIDTH);
    let sums = sums(all, tiles.div_ceil(CHUNK), 3 * r * r);
    let parts = FactorParts {
        sums: &mut *sums,
        new: Strips::of(new),
    };
    ctx.run(pass, r, tiles, parts);
    total(sums)
}

/// What a part of the factor update writes.
pub(crate) struct FactorParts<'k, T> {
    sums: &'k mut [Sum],
    new: Strips<'k, T>,
}

splittable!([T: Real] FactorParts<'_, T> { sums, new });

impl<T: Real> TilePass<T> for FactorUpdate<'_, T> {
    type Parts<'k> = FactorParts<'k, T>;

    #[inline(always)]
    fn run<S: Isa>(
        &self,
        simd: S,
        parts: Self::Parts<'_>,
        range: Range<usize>,
        workspace: &mut ThreadWorkspace<T>,
    ) {
        let FactorParts { sums, mut new } = parts;
        let sum = &mut sums[0];
        let r = self.f.rows;
        let (pad, stacked, count) = (padded(r), padded(3 * r), range.len());
        let ThreadWorkspace {
            d,
            left,
            right,
            grams,
            ..
        } = workspace;
        grams.reset(r, 3 * r, r);
        for (local, tile) in range.enumerate() {
            let (y, f, w) = (
                self.y.tile(tile),
                self.f.tile(tile),
                &self.weights.tile(tile)[0],
            );
            let t = self.coefficients;
            product(simd, &mut d[..pad], false, [(&t.y, y), (&t.f, f)]);
            for d in &mut d[..r] {
                multiply(simd, d, w);
            }
            product(simd, &mut d[..pad], true, [(&t.x, f)]);
            let new = new.tile(local);
            new.copy_from_slice(f);
            for (new, d) in new.iter_mut().zip(&mut d[..r]) {
                sum.scalar += subtract_update(simd, new, d, self.decay, self.lr);
            }
            let at = local % gathered(r);
            let x = &mut left[at * pad..][..pad];
            let operands = &mut right[at * stacked..][..stacked];
            widen(x, new);
            let (first, rest) = operands.split_at_mut(r);
            let (second, third) = rest.split_at_mut(r);
            first.copy_from_slice(&x[..r]);
            widen(second, f);
            widen(third, y);
            if at + 1 == gathered(r) || local + 1 == count {
                let operands = &right[..(at + 1) * stacked];
                gram(simd, grams, &left[..(at + 1) * pad], operands);
            }
        }
        for (at, x) in sum.products.iter_mut().enumerate() {
            *x = grams.entry(at / (3 * r), at % (3 * r));
        }
    }
}

/// What the transport reads.
pub(crate) struct Transport<'a, T> {
    pub(crate) old: &'a Panel<T>,
    pub(crate) coefficients: &'a TransportCoefficients<T>,
    /// Whether Y has a term of F1: on side 1.
    pub(crate) has_f1_term: bool,
    pub(crate) round: Round,
}

/// Projects the momentum on the new tangent space, and writes F1, which `new` holds.
pub(crate) fn transport<T: Real>(
    ctx: &ParallelCtx<'_, T>,
    f: ViewMut<'_>,
    master: Option<&mut Panel<f32>>,
    y: &mut Panel<T>,
    new: &mut Panel<T>,
    pass: &Transport<'_, T>,
) {
    let (r, tiles) = (new.rows, new.len.div_ceil(WIDTH));
    let parts = TransportParts {
        f,
        master: master.map(Strips::of),
        y: Strips::of(y),
        new: Strips::of(new),
    };
    ctx.run(pass, r, tiles, parts);
}

/// What a part of the transport writes.
pub(crate) struct TransportParts<'k, T> {
    f: ViewMut<'k>,
    master: Option<Strips<'k, f32>>,
    y: Strips<'k, T>,
    new: Strips<'k, T>,
}

splittable!([T: Real] TransportParts<'_, T> { f, master, y, new });

impl<T: Real> TilePass<T> for Transport<'_, T> {
    type Parts<'k> = TransportParts<'k, T>;

    #[inline(always)]
    fn run<S: Isa>(
        &self,
        simd: S,
        parts: Self::Parts<'_>,
        range: Range<usize>,
        workspace: &mut ThreadWorkspace<T>,
    ) {
        let TransportParts {
            mut f,
            mut master,
            mut y,
            mut new,
        } = parts;
        let r = self.old.rows;
        let t = self.coefficients;
        for (local, tile) in range.enumerate() {
            let (y, old, new) = (y.tile(local), self.old.tile(tile), new.tile(local));
            let d = &mut workspace.d[..padded(r)];
            product(simd, d, false, [(&t.y, y), (&t.f, old)]);
            if self.has_f1_term {
                product(simd, d, true, [(&t.f1, new)]);
            }
            y.copy_from_slice(&d[..r]);
            if let Some(master) = &mut master {
                keep_master(new, master.tile(local));
            }
            f.store(simd, 0..r, local, new, self.round);
        }
    }
}
