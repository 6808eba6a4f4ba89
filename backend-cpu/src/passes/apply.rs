//! The second pass: applies r x r matrices to thin tiles, and steps a factor.
//!
//! ```text
//! D  = P G + T F                 (T absent for plain LoRA, where P is a number)
//! D  = its momentum, or Adam's N of it
//! F <- decay F - lr D
//! ```
//!
//! One read of F, G and the moments, one write of F and the moments. A rehearsal does the same
//! and writes nothing: it finds the length of an update before a trust region cuts it.

use super::survey::Crew;
use super::thin::{Source, merge, squares};
use crate::kernels::{AdamNumbers, Coefficients, adam, product};
use crate::panel::Panel;
use crate::path::Job;
use crate::rounding::Round;
use crate::scratch::{Sum, Tiles, padded, sums, total};
use crate::simd::{Isa, Real, Strip};
use crate::spread::{CHUNK, Strips, spread};
use crate::view::View;

/// What D becomes before it is subtracted.
#[derive(Clone, Copy)]
pub(crate) enum Rule<T> {
    /// Nothing else.
    Plain,
    /// The momentum, times this, plus D.
    Momentum(T),
    /// Adam's N.
    Adam(AdamNumbers<T>),
}

/// How D is made of G and F.
#[derive(Clone, Copy)]
pub(crate) enum Adjustment<'a, T> {
    /// `factor * G`.
    Raw(T),
    /// `P G + T F`.
    Adjusted(&'a Coefficients<T>, &'a Coefficients<T>),
}

/// A factor's memory: momentum, or first, second and largest moment; its master copy.
pub(crate) struct Memories<'m, T> {
    pub(crate) moments: [Option<&'m mut Panel<T>>; 3],
    pub(crate) master: Option<&'m mut Panel<f32>>,
}

/// The numbers of one factor's step.
#[derive(Clone, Copy)]
pub(crate) struct Stride<'a, T> {
    pub(crate) adjustment: Adjustment<'a, T>,
    pub(crate) rule: Rule<T>,
    pub(crate) decay: T,
    /// The learning rate, times the update clip.
    pub(crate) lr: T,
    pub(crate) round: Round,
    /// False for a rehearsal.
    pub(crate) commit: bool,
}

/// Steps a factor; returns `|lr D|^2`.
pub(crate) fn apply<T: Real>(
    crew: &Crew<'_, T>,
    all: &mut Vec<Sum>,
    f: View,
    g: Source<'_, T>,
    memories: Memories<'_, T>,
    stride: Stride<'_, T>,
) -> f64 {
    let tiles = f.tiles();
    let parts = sums(all, tiles.div_ceil(CHUNK), 0);
    let moments = memories.moments.map(Strips::of);
    let master = Strips::of(memories.master);
    let work = (&mut *parts, (moments, master));
    spread(
        crew.parallel,
        0,
        work,
        &|chunk, (sum, (moments, master))| {
            let last = tiles.min((chunk + 1) * CHUNK);
            let mut own = crew.pool.tiles(f.rows);
            let range = chunk * CHUNK..last;
            let sum: &mut [Sum] = sum;
            let sum = &mut sum[0].scalar;
            crew.path.run(Apply {
                f,
                g,
                stride,
                moments,
                master,
                range,
                tiles: &mut own,
                sum,
            });
        },
    );
    total(parts).scalar
}

struct Apply<'j, T> {
    f: View,
    g: Source<'j, T>,
    stride: Stride<'j, T>,
    moments: [Strips<'j, T>; 3],
    master: Strips<'j, f32>,
    range: std::ops::Range<usize>,
    tiles: &'j mut Tiles<T>,
    sum: &'j mut f64,
}

impl<T: Real> Job for Apply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Apply {
            f,
            g,
            stride,
            mut moments,
            mut master,
            range,
            tiles,
            sum,
        } = self;
        let r = f.rows;
        let Tiles {
            f: values,
            g: gradients,
            d,
            h,
            ..
        } = tiles;
        for (local, tile) in range.enumerate() {
            f.load(simd, 0..r, tile, values);
            if master.exist() {
                merge(f.dtype, &mut values[..r], master.tile(local));
            }
            g.load(simd, tile, gradients);
            match stride.adjustment {
                Adjustment::Raw(factor) => scaled(simd, factor, &gradients[..r], d),
                Adjustment::Adjusted(p, t) => {
                    let terms = [(p, &gradients[..r]), (t, &values[..r])];
                    product(simd, &mut d[..padded(r)], false, terms);
                }
            }
            let [first, second, largest] = &mut moments;
            let (first, second) = (first.tile(local), second.tile(local));
            let largest = largest.tile(local);
            if stride.commit {
                follow(simd, &stride.rule, &mut d[..r], [first, second, largest]);
            } else {
                // Moments that are changed here are thrown away.
                let (one, rest) = h.split_at_mut(padded(r));
                let (two, three) = rest.split_at_mut(padded(r));
                let first = copied(one, first);
                let second = copied(two, second);
                let largest = copied(three, largest);
                follow(simd, &stride.rule, &mut d[..r], [first, second, largest]);
            }
            for (values, d) in values[..r].iter_mut().zip(&mut d[..r]) {
                *sum += descend(simd, values, d, stride.decay, stride.lr);
            }
            if stride.commit {
                if master.exist() {
                    narrow(&mut values[..r], master.tile(local));
                }
                f.store(simd, 0..r, tile, &values[..r], stride.round);
            }
        }
    }
}

/// A copy of some strips.
#[inline(always)]
fn copied<'c, T: Copy>(out: &'c mut [Strip<T>], strips: &[Strip<T>]) -> &'c mut [Strip<T>] {
    let out = &mut out[..strips.len()];
    out.copy_from_slice(strips);
    out
}

/// `out = factor x`.
#[inline(always)]
fn scaled<S: Isa, T: Real>(simd: S, factor: T, x: &[Strip<T>], out: &mut [Strip<T>]) {
    let factor = T::splat(simd, factor);
    for (x, out) in x.iter().zip(out) {
        for (x, out) in T::vectors::<S>(x).iter().zip(T::vectors_mut::<S>(out)) {
            *out = T::mul(simd, factor, *x);
        }
    }
}

/// Replaces D by its momentum or by N.
#[inline(always)]
fn follow<S: Isa, T: Real>(
    simd: S,
    rule: &Rule<T>,
    d: &mut [Strip<T>],
    state: [&mut [Strip<T>]; 3],
) {
    let [first, second, largest] = state;
    match rule {
        Rule::Plain => {}
        Rule::Momentum(mu) => {
            let mu = T::splat(simd, *mu);
            for (d, momentum) in d.iter_mut().zip(first) {
                let momentum = T::vectors_mut::<S>(momentum);
                for (d, momentum) in T::vectors_mut::<S>(d).iter_mut().zip(momentum) {
                    *momentum = T::mul_add(simd, mu, *momentum, *d);
                    *d = *momentum;
                }
            }
        }
        Rule::Adam(numbers) => {
            let mut largest = largest.iter_mut();
            for ((d, first), second) in d.iter_mut().zip(first).zip(second) {
                adam(simd, numbers, d, first, second, largest.next());
            }
        }
    }
}

/// `F <- decay F - lr D` on a strip, D becoming the update; returns `|lr D|^2`.
#[inline(always)]
pub(crate) fn descend<S: Isa, T: Real>(
    simd: S,
    f: &mut Strip<T>,
    d: &mut Strip<T>,
    decay: T,
    lr: T,
) -> f64 {
    let (decay, minus) = (T::splat(simd, decay), T::splat(simd, T::of(-lr.wide())));
    for (f, d) in T::vectors_mut::<S>(f)
        .iter_mut()
        .zip(T::vectors_mut::<S>(d))
    {
        let update = T::mul(simd, minus, *d);
        *f = T::mul_add(simd, decay, *f, update);
        *d = update;
    }
    squares(d)
}

/// Keeps values in the master copy, and takes them back as it keeps them: the parameter must be
/// the rounding of the copy.
#[inline(always)]
pub(crate) fn narrow<T: Real>(values: &mut [Strip<T>], master: &mut [Strip<f32>]) {
    for (values, master) in values.iter_mut().zip(master) {
        for (value, master) in values.iter_mut().zip(master) {
            *master = value.narrow();
            *value = T::of_f32(*master);
        }
    }
}
