//! The closed form, as the r x r matrices that the thin passes apply.
//!
//! Side 0 is A (F = A, G = gA), side 1 is B transposed (F = B', G = gB'). With gamma everything
//! that multiplies the raw gradients (sign, loss scale, clip):
//!
//! ```text
//! P0 = gamma SB^+ / s^2        dA  = P0 gA  + X A
//! P1 = gamma SA^+ / s^2        dB' = P1 gB' - (Q + X)' B'
//! Q  = gamma SB^+ (B'gB) SA^+ / s^2                       (B Q is the part of V inside B's columns)
//! X: SB X + X SA = -U A'  or  -Q / 2  or  0
//! ```
//!
//! The data flow is `inverses.project_gradients(..)`, a [`Projection`], and
//! `inverses.solve_x(projection, ..)`, the [`InnerTerms`] Q and X. Where N takes the place of g,
//! the same two calls give N's terms.

use faer::{MatMut, MatRef};
use lora_pro_core::{Damping, XChoice};

use super::eigen::Eigen;
use super::inverse::GramInverse;
use super::scratch::{RankScratch, combine, multiply};
use super::square::Square;

/// SA^+ (side 0) and SB^+ (side 1).
#[derive(Clone, Debug, Default)]
pub(crate) struct GramInverses(pub(crate) [GramInverse; 2]);

/// Gradients through the roots, SA^+ = Ra Ra' and SB^+ = Rb Rb'.
#[derive(Clone, Debug, Default)]
pub(crate) struct Projection {
    /// Rb' (gA A').
    rb_ga_at: Square,
    /// Rb' (B'gB) Ra.
    rb_btgb_ra: Square,
}

/// What the closed form adds to (P0 gA, P1 gB') inside of the factors' spaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct InnerTerms {
    pub(crate) q: Square,
    pub(crate) x: Square,
}

impl Projection {
    pub(crate) fn reserve(&mut self, r: usize) {
        self.rb_ga_at.reserve(r);
        self.rb_btgb_ra.reserve(r);
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        self.rb_ga_at.fill(f64::NAN);
        self.rb_btgb_ra.fill(f64::NAN);
    }
}

impl InnerTerms {
    pub(crate) fn reserve(&mut self, r: usize) {
        self.q.reserve(r);
        self.x.reserve(r);
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        self.q.fill(f64::NAN);
        self.x.fill(f64::NAN);
    }
}

impl GramInverses {
    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        self.0.iter_mut().for_each(GramInverse::poison);
    }

    /// Decomposes and inverts SA and SB, whose entries are sums of `lens` products.
    pub(crate) fn compute(
        &mut self,
        scratch: &mut RankScratch,
        grams: [MatRef<'_, f64>; 2],
        lens: [usize; 2],
        damping: Damping,
    ) {
        for (side, inverse) in self.0.iter_mut().enumerate() {
            inverse.compute(scratch, grams[side], lens[side], damping);
        }
    }

    /// Ra and Rb.
    fn roots(&self) -> [MatRef<'_, f64>; 2] {
        self.0.each_ref().map(|inverse| inverse.root.as_ref())
    }

    /// The projection of gradients of which gA A' and B'gB are given.
    pub(crate) fn project_gradients<'p>(
        &self,
        scratch: &mut RankScratch,
        out: &'p mut Projection,
        ga_at: MatRef<'_, f64>,
        bt_gb: MatRef<'_, f64>,
    ) -> &'p Projection {
        let [ra, rb] = self.roots();
        out.reserve(ga_at.nrows());
        let [mut inner, ..] = scratch.matrices(ga_at.nrows());
        multiply(out.rb_ga_at.as_mut(), 1.0, rb.transpose(), ga_at);
        multiply(inner.as_mut(), 1.0, rb.transpose(), bt_gb);
        multiply(out.rb_btgb_ra.as_mut(), 1.0, inner.as_ref(), ra);
        out
    }

    /// The projection of an N in the place of g of which B'N A' is a sum of two products. Each is
    /// much larger than the sum where B is ill-conditioned; through the roots it is not.
    pub(crate) fn project_products<'p>(
        &self,
        scratch: &mut RankScratch,
        out: &'p mut Projection,
        products: [[MatRef<'_, f64>; 2]; 2],
    ) -> &'p Projection {
        let [ra, rb] = self.roots();
        out.reserve(ra.nrows());
        let [mut of_b, mut of_a, mut part] = scratch.matrices(ra.nrows());
        for (k, [b, a]) in products.into_iter().enumerate() {
            multiply(of_b.as_mut(), 1.0, rb.transpose(), b);
            multiply(of_a.as_mut(), 1.0, a, ra);
            let terms = [(a, &mut out.rb_ga_at), (of_a.as_ref(), &mut out.rb_btgb_ra)];
            for (right, sum) in terms {
                multiply(part.as_mut(), 1.0, of_b.as_ref(), right);
                match k {
                    0 => combine(sum.as_mut(), [(1.0, part.as_ref())]),
                    _ => **sum += &part,
                }
            }
        }
        out
    }

    /// `out = factor * SB^+ (B'gB) SA^+`.
    pub(crate) fn solve_both_sides(
        &self,
        scratch: &mut RankScratch,
        projection: &Projection,
        mut out: MatMut<'_, f64>,
        factor: f64,
    ) {
        let [ra, rb] = self.roots();
        let [mut half, ..] = scratch.matrices(ra.nrows());
        multiply(half.as_mut(), 1.0, rb, projection.rb_btgb_ra.as_ref());
        multiply(out.as_mut(), factor, half.as_ref(), ra.transpose());
    }

    /// Q and X of gradients whose projection is given, times `factor`.
    ///
    /// `factor` is 1 / s^2 times what turns the projected matrices into the gradients: gamma for
    /// raw gradients, s for B'N and N A'.
    pub(crate) fn solve_x(
        &self,
        scratch: &mut RankScratch,
        projection: &Projection,
        choice: XChoice,
        factor: f64,
        out: &mut InnerTerms,
    ) {
        out.reserve(self.0[0].root.nrows());
        let InnerTerms { q, x } = out;
        self.solve_both_sides(scratch, projection, q.as_mut(), factor);
        match choice {
            XChoice::Zero => x.fill(0.0),
            XChoice::Symmetric => combine(x.as_mut(), [(-0.5, q.as_ref())]),
            XChoice::Sylvester => {
                let [_, rb] = self.roots();
                multiply(x.as_mut(), -factor, rb, projection.rb_ga_at.as_ref());
                self.sylvester(scratch, x.as_mut());
            }
        }
    }

    /// Solves `SB X + X SA = C`, from C to X in place:
    /// `X = Qb [ (Qb' C Qa)_ij / (b_i + a_j) ] Qa'`, 0 where the sum is null up to rounding.
    fn sylvester(&self, scratch: &mut RankScratch, mut c: MatMut<'_, f64>) {
        let [ea, eb] = self.0.each_ref().map(|inverse| &inverse.eigen);
        let (qa, qb) = (ea.vectors.as_ref(), eb.vectors.as_ref());
        let r = c.nrows();
        let null = Eigen::null_share(r) * (ea.largest() + eb.largest());
        let [mut first, mut second, _] = scratch.matrices(r);
        multiply(first.as_mut(), 1.0, qb.transpose(), c.as_ref());
        multiply(second.as_mut(), 1.0, first.as_ref(), qa);
        for j in 0..r {
            for i in 0..r {
                let sum = eb.values[i] + ea.values[j];
                second[(i, j)] = if sum <= null {
                    0.0
                } else {
                    second[(i, j)] / sum
                };
            }
        }
        multiply(first.as_mut(), 1.0, qb, second.as_ref());
        multiply(c.as_mut(), 1.0, first.as_ref(), qa.transpose());
    }
}
