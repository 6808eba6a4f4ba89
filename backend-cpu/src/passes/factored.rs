//! The thin passes of the factored mode. With H = (sU, sV') a side's part of E:
//!
//! ```text
//! average:  H = Hg G + Hf F
//!           sq <- b2 sq + (1 - b2) mean of E.E over the other dimension, from [H; F] and r x r
//!           Y  <- b1 Y + (1 - b1) H
//!           w  = a or b of N = Da (M / c1) Db;   F w [F; Y]'  in f64
//! advance:  D  = (T1 Y + T2 F) w + T3 F;  F1 = decay F - lr D;   F1 [F1; F; Y]'  in f64
//! carry:    Y <- T1 Y + T2 F + T3 F1;  F <- F1
//! ```
//!
//! Side 1 holds B' and Z'. Nothing but the state and F is written that grows with m or n, besides
//! copies of F, F1 and w in scratch memory, which stay in cache.

use super::apply::{descend, narrow};
use super::survey::Crew;
use super::thin::{Source, widen};
use crate::kernels::{Coefficients, gathered, gram, product};
use crate::panel::Panel;
use crate::path::Job;
use crate::rounding::Round;
use crate::scratch::{Sum, Tiles, padded, sums, total};
use crate::simd::{Isa, Real, Strip, WIDTH};
use crate::spread::{CHUNK, Strips, spread};
use crate::view::View;

/// What the first pass applies.
#[derive(Clone, Copy)]
pub(crate) struct Averaging<'a, T> {
    /// Hg and, on side 1, Hf.
    pub(crate) split: (&'a Coefficients<T>, Option<&'a Coefficients<T>>),
    /// `|E's column|^2 = H'S H + 2 H'M F + F'K F`: S and 2 M, and K, of the other side.
    pub(crate) square: (
        &'a Coefficients<T>,
        &'a Coefficients<T>,
        &'a Coefficients<T>,
    ),
    /// 1 / the other dimension.
    pub(crate) share: T,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    /// `w = weight / (sqrt(sq) + eps)`.
    pub(crate) weight: T,
    pub(crate) eps: T,
}

/// One side's state.
pub(crate) struct Momentum<'m, T> {
    /// Y, or Z'.
    pub(crate) y: &'m mut Panel<T>,
    /// Means of E.E.
    pub(crate) sq: &'m mut Panel<T>,
    /// The largest so far, with AMSGrad.
    pub(crate) largest: Option<&'m mut Panel<T>>,
}

/// Averages; leaves F in `old` and w in `weights`. Returns `F w [F; Y]'` (r x 2r) and the sum of
/// the means (the largest, with AMSGrad).
pub(crate) fn average<'s, T: Real>(
    crew: &Crew<'_, T>,
    all: &'s mut Vec<Sum>,
    [f, g]: [Source<'_, T>; 2],
    state: Momentum<'_, T>,
    [old, weights]: [&mut Panel<T>; 2],
    with: Averaging<'_, T>,
) -> &'s Sum {
    let [r, len] = f.shape();
    old.reshape(r, len);
    weights.reshape(1, len);
    let tiles = len.div_ceil(WIDTH);
    let parts = sums(all, tiles.div_ceil(CHUNK), 2 * r * r);
    let Momentum { y, sq, largest } = state;
    let panels = [Some(y), Some(sq), largest, Some(old), Some(weights)].map(Strips::of);
    spread(
        crew.parallel,
        0,
        (&mut *parts, panels),
        &|chunk, (sum, panels)| {
            let range = chunk * CHUNK..tiles.min((chunk + 1) * CHUNK);
            let mut own = crew.pool.tiles(r);
            let sum: &mut [Sum] = sum;
            let sum = &mut sum[0];
            crew.path.run(Average {
                f,
                g,
                with,
                panels,
                range,
                tiles: &mut own,
                sum,
            });
        },
    );
    total(parts)
}

struct Average<'j, T> {
    f: Source<'j, T>,
    g: Source<'j, T>,
    with: Averaging<'j, T>,
    panels: [Strips<'j, T>; 5],
    range: std::ops::Range<usize>,
    tiles: &'j mut Tiles<T>,
    sum: &'j mut Sum,
}

impl<T: Real> Job for Average<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Average {
            f,
            g,
            with,
            panels,
            range,
            tiles,
            sum,
        } = self;
        let [mut ys, mut sqs, mut largests, mut olds, mut weights] = panels;
        let r = f.shape()[0];
        let (pad, stacked, count) = (padded(r), padded(2 * r), range.len());
        let Tiles {
            f: values,
            g: gradients,
            d,
            h,
            x,
            y: all,
            grams,
            ..
        } = tiles;
        grams.reset(r, 2 * r, r);
        for (local, tile) in range.enumerate() {
            f.load(simd, tile, values);
            g.load(simd, tile, gradients);
            olds.tile(local).copy_from_slice(&values[..r]);

            let own = (with.split.0, &gradients[..r]);
            match with.split.1 {
                None => product(simd, &mut d[..pad], false, [own]),
                Some(inside) => {
                    product(simd, &mut d[..pad], false, [own, (inside, &values[..r])]);
                }
            }
            let (s, m, k) = with.square;
            let (upper, lower) = h.split_at_mut(pad);
            product(simd, upper, false, [(s, &d[..r]), (m, &values[..r])]);
            product(simd, &mut lower[..pad], false, [(k, &values[..r])]);

            let sq = &mut sqs.tile(local)[0];
            means(
                simd,
                sq,
                [&d[..r], &values[..r]],
                [upper, lower],
                with.share,
                with.beta2,
            );
            let mut chosen = *sq;
            if largests.exist() {
                let largest = &mut largests.tile(local)[0];
                raise(simd, largest, sq);
                chosen = *largest;
            }
            sum.scalar += chosen.iter().map(|x| x.wide()).sum::<f64>();
            let w = &mut weights.tile(local)[0];
            weigh(simd, w, &chosen, with.weight, with.eps);

            let y = ys.tile(local);
            for (y, d) in y.iter_mut().zip(&d[..r]) {
                running_mean(simd, y, d, with.beta1);
            }
            let at = local % gathered(r);
            let operands = &mut all[at * stacked..][..stacked];
            widen(&mut operands[..r], &values[..r]);
            widen(&mut operands[r..], y);
            for values in &mut values[..r] {
                multiply(simd, values, w);
            }
            widen(&mut x[at * pad..][..pad], &values[..r]);
            if at + 1 == gathered(r) || local + 1 == count {
                gram(
                    simd,
                    grams,
                    &x[..(at + 1) * pad],
                    &all[..(at + 1) * stacked],
                );
            }
        }
        for (at, x) in sum.products.iter_mut().enumerate() {
            *x = grams.entry(at / (2 * r), at % (2 * r));
        }
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

/// Averages `share * sum_k (x_k z_k)` into the means, where it is not negative: it is a square, up
/// to rounding.
#[inline(always)]
fn means<S: Isa, T: Real>(
    simd: S,
    sq: &mut Strip<T>,
    x: [&[Strip<T>]; 2],
    z: [&[Strip<T>]; 2],
    share: T,
    beta2: f64,
) {
    let mut square = Strip::all(T::default());
    for (x, z) in x.into_iter().zip(z) {
        for (x, z) in x.iter().zip(z) {
            let vectors = T::vectors::<S>(x).iter().zip(T::vectors::<S>(z));
            for (square, (x, z)) in T::vectors_mut::<S>(&mut square).iter_mut().zip(vectors) {
                *square = T::mul_add(simd, *x, *z, *square);
            }
        }
    }
    // (x + |x|) / 2, and not max(x, 0): a NaN must stay one, for the check after a doubtful step.
    let (half, minus) = (
        T::splat(simd, T::of(0.5 * share.wide())),
        T::splat(simd, T::of(-1.0)),
    );
    for square in T::vectors_mut::<S>(&mut square) {
        let size = T::max(simd, *square, T::mul(simd, minus, *square));
        *square = T::mul(simd, half, T::add(simd, *square, size));
    }
    running_mean(simd, sq, &square, beta2);
}

#[inline(always)]
fn raise<S: Isa, T: Real>(simd: S, largest: &mut Strip<T>, x: &Strip<T>) {
    for (largest, x) in T::vectors_mut::<S>(largest)
        .iter_mut()
        .zip(T::vectors::<S>(x))
    {
        *largest = T::max(simd, *largest, *x);
    }
}

#[inline(always)]
fn weigh<S: Isa, T: Real>(simd: S, w: &mut Strip<T>, sq: &Strip<T>, weight: T, eps: T) {
    let (weight, eps) = (T::splat(simd, weight), T::splat(simd, eps));
    for (w, sq) in T::vectors_mut::<S>(w).iter_mut().zip(T::vectors::<S>(sq)) {
        *w = T::div(simd, weight, T::add(simd, T::sqrt(simd, *sq), eps));
    }
}

#[inline(always)]
fn multiply<S: Isa, T: Real>(simd: S, x: &mut Strip<T>, w: &Strip<T>) {
    for (x, w) in T::vectors_mut::<S>(x).iter_mut().zip(T::vectors::<S>(w)) {
        *x = T::mul(simd, *x, *w);
    }
}

/// What the second pass applies.
#[derive(Clone, Copy)]
pub(crate) struct Advancing<'a, T> {
    pub(crate) t: [&'a Coefficients<T>; 3],
    pub(crate) decay: T,
    /// The learning rate, times the update clip.
    pub(crate) lr: T,
}

/// Leaves F1 in `new`. Returns `F1 [F1; F; Y]'` (r x 3r) and `|lr D|^2`.
pub(crate) fn advance<'s, T: Real>(
    crew: &Crew<'_, T>,
    all: &'s mut Vec<Sum>,
    [y, old, weights]: [&Panel<T>; 3],
    new: &mut Panel<T>,
    with: Advancing<'_, T>,
) -> &'s Sum {
    let (r, len) = (old.rows, old.len);
    new.reshape(r, len);
    let tiles = len.div_ceil(WIDTH);
    let parts = sums(all, tiles.div_ceil(CHUNK), 3 * r * r);
    let news = Strips::of(Some(new));
    spread(
        crew.parallel,
        0,
        (&mut *parts, news),
        &|chunk, (sum, news)| {
            let range = chunk * CHUNK..tiles.min((chunk + 1) * CHUNK);
            let mut own = crew.pool.tiles(r);
            let sum: &mut [Sum] = sum;
            let sum = &mut sum[0];
            let panels = [y, old, weights];
            crew.path.run(Advance {
                panels,
                news,
                with,
                range,
                tiles: &mut own,
                sum,
            });
        },
    );
    total(parts)
}

struct Advance<'j, T> {
    panels: [&'j Panel<T>; 3],
    news: Strips<'j, T>,
    with: Advancing<'j, T>,
    range: std::ops::Range<usize>,
    tiles: &'j mut Tiles<T>,
    sum: &'j mut Sum,
}

impl<T: Real> Job for Advance<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Advance {
            panels: [y, old, weights],
            mut news,
            with,
            range,
            tiles,
            sum,
        } = self;
        let r = old.rows;
        let (pad, stacked, count) = (padded(r), padded(3 * r), range.len());
        let Tiles {
            d,
            x: all_x,
            y: all,
            grams,
            ..
        } = tiles;
        grams.reset(r, 3 * r, r);
        for (local, tile) in range.enumerate() {
            let (y, f, w) = (y.tile(tile), old.tile(tile), &weights.tile(tile)[0]);
            let [t1, t2, t3] = with.t;
            product(simd, &mut d[..pad], false, [(t1, y), (t2, f)]);
            for d in &mut d[..r] {
                multiply(simd, d, w);
            }
            product(simd, &mut d[..pad], true, [(t3, f)]);
            let new = news.tile(local);
            new.copy_from_slice(f);
            for (new, d) in new.iter_mut().zip(&mut d[..r]) {
                sum.scalar += descend(simd, new, d, with.decay, with.lr);
            }
            let at = local % gathered(r);
            let x = &mut all_x[at * pad..][..pad];
            let operands = &mut all[at * stacked..][..stacked];
            widen(x, new);
            let (first, rest) = operands.split_at_mut(r);
            let (second, third) = rest.split_at_mut(r);
            first.copy_from_slice(&x[..r]);
            widen(second, f);
            widen(third, y);
            if at + 1 == gathered(r) || local + 1 == count {
                gram(
                    simd,
                    grams,
                    &all_x[..(at + 1) * pad],
                    &all[..(at + 1) * stacked],
                );
            }
        }
        for (at, x) in sum.products.iter_mut().enumerate() {
            *x = grams.entry(at / (3 * r), at % (3 * r));
        }
    }
}

/// What the third pass applies.
#[derive(Clone, Copy)]
pub(crate) struct Carrying<'a, T> {
    pub(crate) t: [&'a Coefficients<T>; 2],
    pub(crate) inside: Option<&'a Coefficients<T>>,
    pub(crate) round: Round,
}

/// Carries the momentum over, and writes F1.
pub(crate) fn carry<T: Real>(
    crew: &Crew<'_, T>,
    f: View,
    master: Option<&mut Panel<f32>>,
    y: &mut Panel<T>,
    [old, new]: [&mut Panel<T>; 2],
    with: Carrying<'_, T>,
) {
    let tiles = f.tiles();
    let panels = [Some(y), Some(old), Some(new)].map(Strips::of);
    let work = (panels, Strips::of(master));
    spread(crew.parallel, 0, work, &|chunk, (panels, master)| {
        let range = chunk * CHUNK..tiles.min((chunk + 1) * CHUNK);
        let mut own = crew.pool.tiles(f.rows);
        crew.path.run(Carry {
            f,
            panels,
            master,
            with,
            range,
            tiles: &mut own,
        });
    });
}

struct Carry<'j, T> {
    f: View,
    panels: [Strips<'j, T>; 3],
    master: Strips<'j, f32>,
    with: Carrying<'j, T>,
    range: std::ops::Range<usize>,
    tiles: &'j mut Tiles<T>,
}

impl<T: Real> Job for Carry<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Carry {
            f,
            panels: [mut ys, mut olds, mut news],
            mut master,
            with,
            range,
            tiles,
        } = self;
        let r = f.rows;
        for (local, tile) in range.enumerate() {
            let (y, old, new) = (ys.tile(local), olds.tile(local), news.tile(local));
            let d = &mut tiles.d[..padded(r)];
            product(simd, d, false, [(with.t[0], y), (with.t[1], old)]);
            if let Some(inside) = with.inside {
                product(simd, d, true, [(inside, new)]);
            }
            y.copy_from_slice(&d[..r]);
            if master.exist() {
                narrow(new, master.tile(local));
            }
            f.store(simd, 0..r, tile, new, with.round);
        }
    }
}
