//! The update pass: applies r x r matrices to thin tiles, and steps a factor.
//!
//! ```text
//! D  = P G + T F                 (a number times G for plain LoRA)
//! D <- D, its momentum, or Adam's N of it
//! F <- decay F - lr D
//! ```
//!
//! One read of F, G and the moments, one write of F and the moments. A dry run does the same and
//! writes nothing: it finds the length of an update before a trust region cuts it.

use std::ops::Range;

use super::thin::{ThinInput, keep_master, merge_master, squares};
use super::tile_pass::TilePass;
use crate::kernels::{AdamNumbers, adam, product};
use crate::panel::Panel;
use crate::parallel::{CHUNK, ParallelCtx, Splittable, Strips, splittable};
use crate::rounding::Round;
use crate::simd::{Isa, Real, Strip};
use crate::typed_state::AdamMoments;
use crate::view::ViewMut;
use crate::workspace::{DirectionCoefficients, Sum, ThreadWorkspace, padded, sums, total};

/// What D becomes before it is subtracted, with the memory that this takes.
pub(crate) enum UpdateRule<T, P> {
    /// D itself.
    Plain,
    /// `momentum <- mu momentum + D`.
    Momentum { mu: T, momentum: P },
    /// Adam's N.
    Adam {
        numbers: AdamNumbers<T>,
        moments: AdamMoments<P>,
    },
}

impl<T: Copy, P> UpdateRule<T, P> {
    /// The same rule with other views of its memory.
    #[inline(always)]
    pub(crate) fn map_mut<'m, Q>(
        &'m mut self,
        mut each: impl FnMut(&'m mut P) -> Q,
    ) -> UpdateRule<T, Q> {
        match self {
            UpdateRule::Plain => UpdateRule::Plain,
            UpdateRule::Momentum { mu, momentum } => UpdateRule::Momentum {
                mu: *mu,
                momentum: each(momentum),
            },
            UpdateRule::Adam { numbers, moments } => UpdateRule::Adam {
                numbers: *numbers,
                moments: moments.as_mut().map(each),
            },
        }
    }
}

impl<T: Real, P: Splittable> Splittable for UpdateRule<T, P> {
    fn count(&self) -> usize {
        match self {
            UpdateRule::Plain => 0,
            UpdateRule::Momentum { momentum, .. } => momentum.count(),
            UpdateRule::Adam { moments, .. } => moments.count(),
        }
    }

    fn split(self, at: usize) -> (Self, Self) {
        match self {
            UpdateRule::Plain => (UpdateRule::Plain, UpdateRule::Plain),
            UpdateRule::Momentum { mu, momentum } => {
                let (left, right) = momentum.split(at);
                let part = |momentum| UpdateRule::Momentum { mu, momentum };
                (part(left), part(right))
            }
            UpdateRule::Adam { numbers, moments } => {
                let (left, right) = moments.split(at);
                let part = |moments| UpdateRule::Adam { numbers, moments };
                (part(left), part(right))
            }
        }
    }
}

/// How D is made of G and F.
#[derive(Clone, Copy)]
pub(crate) enum Adjustment<'a, T> {
    /// `factor * G`.
    Raw(T),
    /// `P G + T F`.
    Adjusted(&'a DirectionCoefficients<T>),
}

/// Whether a pass writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    DryRun,
    Commit,
}

/// What the pass reads besides the factor and its memory.
pub(crate) struct UpdateParams<'a, T> {
    pub(crate) g: ThinInput<'a, T>,
    pub(crate) adjustment: Adjustment<'a, T>,
    pub(crate) decay: T,
    /// The learning rate, times the update clip.
    pub(crate) lr: T,
    pub(crate) round: Round,
    pub(crate) mode: Mode,
}

/// A factor with what is remembered of it.
pub(crate) struct FactorMut<'m, T> {
    pub(crate) f: ViewMut<'m>,
    pub(crate) rule: UpdateRule<T, &'m mut Panel<T>>,
    pub(crate) master: Option<&'m mut Panel<f32>>,
}

/// Steps a factor; returns `|lr D|^2`.
pub(crate) fn update<T: Real>(
    ctx: &ParallelCtx<'_, T>,
    all: &mut Vec<Sum>,
    factor: &mut FactorMut<'_, T>,
    params: &UpdateParams<'_, T>,
) -> f64 {
    let view = factor.f.as_ref();
    let (r, tiles) = (view.rows(), view.tiles());
    let sums = sums(all, tiles.div_ceil(CHUNK), 0);
    let parts = UpdateParts {
        sums: &mut *sums,
        f: factor.f.reborrow(),
        rule: factor.rule.map_mut(|panel| Strips::of(panel)),
        master: factor.master.as_deref_mut().map(Strips::of),
    };
    ctx.run(params, r, tiles, parts);
    total(sums).scalar
}

/// What a part of the pass writes.
pub(crate) struct UpdateParts<'k, T> {
    sums: &'k mut [Sum],
    f: ViewMut<'k>,
    rule: UpdateRule<T, Strips<'k, T>>,
    master: Option<Strips<'k, f32>>,
}

splittable!([T: Real] UpdateParts<'_, T> { sums, f, rule, master });

impl<T: Real> TilePass<T> for UpdateParams<'_, T> {
    type Parts<'k> = UpdateParts<'k, T>;

    #[inline(always)]
    fn run<S: Isa>(
        &self,
        simd: S,
        parts: Self::Parts<'_>,
        range: Range<usize>,
        workspace: &mut ThreadWorkspace<T>,
    ) {
        let UpdateParts {
            sums,
            mut f,
            mut rule,
            mut master,
        } = parts;
        let (r, storage) = (f.as_ref().rows(), f.as_ref().storage());
        let ThreadWorkspace {
            f: values,
            g: gradients,
            d,
            spare,
            ..
        } = workspace;
        for (local, tile) in range.enumerate() {
            f.as_ref().load(simd, 0..r, local, values);
            if let Some(master) = &mut master {
                merge_master(storage, &mut values[..r], master.tile(local));
            }
            self.g.load(simd, tile, gradients);
            match self.adjustment {
                Adjustment::Raw(factor) => scaled(simd, factor, &gradients[..r], d),
                Adjustment::Adjusted(direction) => {
                    let terms = [
                        (&direction.p, &gradients[..r]),
                        (&direction.t, &values[..r]),
                    ];
                    product(simd, &mut d[..padded(r)], false, terms);
                }
            }
            match self.mode {
                Mode::Commit => {
                    let rule = rule.map_mut(|strips| strips.tile(local));
                    apply_update_rule(simd, rule, &mut d[..r]);
                }
                Mode::DryRun => {
                    // Moments that are changed here are thrown away.
                    let mut free = &mut spare[..];
                    let copies = rule.map_mut(|strips| copied(&mut free, strips.tile(local)));
                    apply_update_rule(simd, copies, &mut d[..r]);
                }
            }
            for (values, d) in values[..r].iter_mut().zip(&mut d[..r]) {
                sums[0].scalar += subtract_update(simd, values, d, self.decay, self.lr);
            }
            if self.mode == Mode::Commit {
                if let Some(master) = &mut master {
                    keep_master(&mut values[..r], master.tile(local));
                }
                f.store(simd, 0..r, local, &values[..r], self.round);
            }
        }
    }
}

/// A copy of some strips, in memory that is taken from `free`.
#[inline(always)]
fn copied<'c, T: Copy>(free: &mut &'c mut [Strip<T>], strips: &[Strip<T>]) -> &'c mut [Strip<T>] {
    let (copy, rest) = std::mem::take(free).split_at_mut(strips.len());
    *free = rest;
    copy.copy_from_slice(strips);
    copy
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
fn apply_update_rule<S: Isa, T: Real>(
    simd: S,
    rule: UpdateRule<T, &mut [Strip<T>]>,
    d: &mut [Strip<T>],
) {
    match rule {
        UpdateRule::Plain => {}
        UpdateRule::Momentum { mu, momentum } => {
            let mu = T::splat(simd, mu);
            for (d, momentum) in d.iter_mut().zip(momentum) {
                let momentum = T::vectors_mut::<S>(momentum);
                for (d, momentum) in T::vectors_mut::<S>(d).iter_mut().zip(momentum) {
                    *momentum = T::mul_add(simd, mu, *momentum, *d);
                    *d = *momentum;
                }
            }
        }
        UpdateRule::Adam { numbers, moments } => {
            let AdamMoments {
                first,
                second,
                max_second,
            } = moments;
            let mut max_second = max_second.into_iter().flatten();
            for ((d, first), second) in d.iter_mut().zip(first).zip(second) {
                adam(simd, &numbers, d, first, second, max_second.next());
            }
        }
    }
}

/// `F <- decay F - lr D` on a strip, D becoming the update; returns `|lr D|^2`.
#[inline(always)]
pub(crate) fn subtract_update<S: Isa, T: Real>(
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
