//! The closed form, as the r x r matrices that the thin passes apply.
//!
//! Side 0 is A (F = A, G = gA), side 1 is B transposed (F = B', G = gB'). With `gamma` everything
//! that multiplies the raw gradients (sign, loss scale, clip):
//!
//! ```text
//! P0 = gamma SB^+ / s^2        dA  = P0 gA  + X A
//! P1 = gamma SA^+ / s^2        dB' = P1 gB' - (Q + X)' B'
//! Q  = gamma SB^+ (B'gB) SA^+ / s^2                       (B Q is the part of V inside B's columns)
//! X: SB X + X SA = -U A'  or  -Q / 2  or  0
//! ```
//!
//! Inverses enter as roots (S^+ = R R'), R' first and R last: see [`Inverse`].

use faer::{MatMut, MatRef};
use lora_pro_core::{Damping, XChoice};

use super::eigen::Eigen;
use super::inverse::Inverse;
use super::square::Square;
use super::work::{Work, combine, multiply};

/// Products of one side's thin matrices, all r x r.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    /// F F': the Gram matrix.
    pub(crate) ff: Square,
    /// F G'.
    pub(crate) fg: Square,
    /// G G'.
    pub(crate) gg: Square,
}

/// An r x r matrix for each use; see the module's head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Solved {
    eigen: [Eigen; 2],
    inverse: [Inverse; 2],
    /// SA^+ and SB^+.
    pub(crate) plus: [Square; 2],
    /// Rb' (gA A').
    left: Square,
    /// Rb' (B'gB) Ra.
    both: Square,
    /// X.
    pub(crate) x: Square,
    /// Q.
    pub(crate) q: Square,
    /// H H' of both sides, where H is the side's part of E: sU, or sV'.
    pub(crate) hh: [Square; 2],
    /// F H' of both sides.
    pub(crate) fh: [Square; 2],
}

impl Side {
    pub(crate) fn reserve(&mut self, r: usize) {
        for matrix in [&mut self.ff, &mut self.fg, &mut self.gg] {
            matrix.reserve(r);
            matrix.fill(0.0);
        }
    }
}

impl Solved {
    pub(crate) fn reserve(&mut self, r: usize) {
        self.eigen.iter_mut().for_each(|eigen| eigen.reserve(r));
        self.inverse
            .iter_mut()
            .for_each(|inverse| inverse.reserve(r));
        let all = [&mut self.x, &mut self.q, &mut self.left, &mut self.both].into_iter();
        let all = all
            .chain(&mut self.plus)
            .chain(&mut self.hh)
            .chain(&mut self.fh);
        all.for_each(|matrix| matrix.reserve(r));
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        let all = [&mut self.x, &mut self.q, &mut self.left, &mut self.both].into_iter();
        let all = all
            .chain(&mut self.plus)
            .chain(&mut self.hh)
            .chain(&mut self.fh);
        all.for_each(|matrix| matrix.fill(f64::NAN));
        self.inverse
            .iter_mut()
            .for_each(|inverse| inverse.root.fill(f64::NAN));
        for eigen in &mut self.eigen {
            eigen.values.fill(f64::NAN);
            eigen.vectors.fill(f64::NAN);
        }
    }

    /// Decomposes SA and SB, whose entries are sums of `lens` products, and inverts them.
    pub(crate) fn decompose(
        &mut self,
        work: &mut Work,
        grams: [MatRef<'_, f64>; 2],
        lens: [usize; 2],
        damping: Damping,
    ) {
        for side in 0..2 {
            self.eigen[side].of(work, grams[side]);
            self.inverse[side].of(&self.eigen[side], damping, lens[side]);
            let root = self.inverse[side].root.as_ref();
            multiply(self.plus[side].as_mut(), 1.0, root, root.transpose());
        }
    }

    /// `out = factor * SB^+ y` (side 1) or `SA^+ y` (side 0).
    pub(crate) fn solve(
        &self,
        work: &mut Work,
        side: usize,
        out: MatMut<'_, f64>,
        factor: f64,
        y: MatRef<'_, f64>,
    ) {
        let root = self.inverse[side].root.as_ref();
        let [_, _, mut inner] = work.matrices(y.nrows());
        multiply(inner.as_mut(), 1.0, root.transpose(), y);
        multiply(out, factor, root, inner.as_ref());
    }

    /// Looks at (gA, gB) through the roots.
    pub(crate) fn look(&mut self, work: &mut Work, ga_a: MatRef<'_, f64>, b_gb: MatRef<'_, f64>) {
        let [ra, rb] = [0, 1].map(|k| self.inverse[k].root.as_ref());
        let [mut inner, ..] = work.matrices(ga_a.nrows());
        multiply(self.left.as_mut(), 1.0, rb.transpose(), ga_a);
        multiply(inner.as_mut(), 1.0, rb.transpose(), b_gb);
        multiply(self.both.as_mut(), 1.0, inner.as_ref(), ra);
    }

    /// Looks at a matrix in the place of g of which B'N A' is a sum of two products. Each is much
    /// larger than the sum where B is ill-conditioned; through the roots it is not.
    pub(crate) fn look_at(&mut self, work: &mut Work, products: [[MatRef<'_, f64>; 2]; 2]) {
        let [ra, rb] = [0, 1].map(|k| self.inverse[k].root.as_ref());
        let [mut of_b, mut of_a, mut part] = work.matrices(ra.nrows());
        for (k, [b, a]) in products.into_iter().enumerate() {
            multiply(of_b.as_mut(), 1.0, rb.transpose(), b);
            multiply(of_a.as_mut(), 1.0, a, ra);
            let terms = [(a, &mut self.left), (of_a.as_ref(), &mut self.both)];
            for (right, sum) in terms {
                multiply(part.as_mut(), 1.0, of_b.as_ref(), right);
                match k {
                    0 => combine(sum.as_mut(), [(1.0, part.as_ref())]),
                    _ => **sum += &part,
                }
            }
        }
    }

    /// `out = factor * SB^+ B'N A' SA^+` of what was looked at.
    pub(crate) fn inside(&self, work: &mut Work, mut out: MatMut<'_, f64>, factor: f64) {
        let [ra, rb] = [0, 1].map(|k| self.inverse[k].root.as_ref());
        let [mut half, ..] = work.matrices(ra.nrows());
        multiply(half.as_mut(), 1.0, rb, self.both.as_ref());
        multiply(out.as_mut(), factor, half.as_ref(), ra.transpose());
    }

    /// Q and X for what was looked at, which `gamma` multiplies.
    pub(crate) fn choose(&mut self, work: &mut Work, choice: XChoice, s: f64, gamma: f64) {
        let factor = gamma / (s * s);
        let mut q = std::mem::take(&mut self.q);
        self.inside(work, q.as_mut(), factor);
        self.q = q;
        let mut x = std::mem::take(&mut self.x);
        match choice {
            XChoice::Zero => x.fill(0.0),
            XChoice::Symmetric => combine(x.as_mut(), [(-0.5, self.q.as_ref())]),
            XChoice::Sylvester => {
                let root = self.inverse[1].root.as_ref();
                multiply(x.as_mut(), -factor, root, self.left.as_ref());
                self.sylvester(work, x.as_mut());
            }
        }
        self.x = x;
    }

    /// Solves `SB X + X SA = C`, from C to X in place:
    /// `X = Qb [ (Qb' C Qa)_ij / (b_i + a_j) ] Qa'`, 0 where the sum is 0 up to rounding.
    fn sylvester(&self, work: &mut Work, mut c: MatMut<'_, f64>) {
        let [ea, eb] = &self.eigen;
        let (qa, qb) = (ea.vectors.as_ref(), eb.vectors.as_ref());
        let max = |values: &[f64]| values.iter().copied().fold(f64::MIN, f64::max);
        let r = c.nrows();
        let rounding = 100.0 * r as f64 * f64::EPSILON * (max(&ea.values) + max(&eb.values));
        let [mut first, mut second, _] = work.matrices(r);
        multiply(first.as_mut(), 1.0, qb.transpose(), c.as_ref());
        multiply(second.as_mut(), 1.0, first.as_ref(), qa);
        for j in 0..r {
            for i in 0..r {
                let sum = eb.values[i] + ea.values[j];
                second[(i, j)] = if sum <= rounding {
                    0.0
                } else {
                    second[(i, j)] / sum
                };
            }
        }
        multiply(first.as_mut(), 1.0, qb, second.as_ref());
        multiply(c.as_mut(), 1.0, first.as_ref(), qa.transpose());
    }

    /// H H' and F H' of both sides, for H = (sU, sV').
    ///
    /// ```text
    /// sU  = (gamma / s) SB^+ gA           H H' = (gamma/s)^2 Rb (Rb' gA gA' Rb) Rb'
    /// sV' = (gamma / s) Ra (yo' - q'B')   with yo = gB Ra, w = B'gB Ra = B'yo, q = SB^+ w
    ///       H H' = (gamma/s)^2 Ra (yo'yo - w'q - q'w + q'SB q) Ra'
    /// ```
    pub(crate) fn split(&mut self, work: &mut Work, s: f64, gamma: f64, sides: &[Side; 2]) {
        let scale = gamma / s;
        let r = self.x.nrows();
        let Solved {
            inverse, hh, fh, ..
        } = self;
        let [ra, rb] = [inverse[0].root.as_ref(), inverse[1].root.as_ref()];
        let [mut one, mut two, mut three] = work.matrices(r);

        multiply(one.as_mut(), 1.0, rb.transpose(), sides[0].gg.as_ref());
        multiply(two.as_mut(), 1.0, one.as_ref(), rb);
        multiply(one.as_mut(), 1.0, rb, two.as_ref());
        multiply(hh[0].as_mut(), scale * scale, one.as_ref(), rb.transpose());
        multiply(one.as_mut(), 1.0, sides[0].fg.as_ref(), rb);
        multiply(fh[0].as_mut(), scale, one.as_ref(), rb.transpose());

        let sb = sides[1].ff.as_ref();
        let (mut w, mut q) = (one, two);
        multiply(w.as_mut(), 1.0, sides[1].fg.as_ref(), ra);
        multiply(three.as_mut(), 1.0, rb.transpose(), w.as_ref());
        multiply(q.as_mut(), 1.0, rb, three.as_ref());
        // inner = yo'yo - w'q - (w'q)' + q'SB q, gathered in hh[1].
        let mut inner = hh[1].as_mut();
        multiply(three.as_mut(), 1.0, ra.transpose(), sides[1].gg.as_ref());
        multiply(inner.as_mut(), 1.0, three.as_ref(), ra);
        multiply(three.as_mut(), 1.0, w.as_ref().transpose(), q.as_ref());
        for j in 0..r {
            for i in 0..r {
                inner[(i, j)] -= three[(i, j)] + three[(j, i)];
            }
        }
        // w - SB q, for F H' and for the last term: q'SB q = q'w - q'(w - SB q).
        multiply(three.as_mut(), -1.0, sb, q.as_ref());
        three += &w;
        multiply(fh[1].as_mut(), scale, three.as_ref(), ra.transpose());
        let mut last = w;
        last -= &three;
        let sb_q = last;
        multiply(three.as_mut(), 1.0, q.as_ref().transpose(), sb_q.as_ref());
        inner += &three;
        multiply(three.as_mut(), 1.0, ra, inner.as_ref());
        multiply(
            hh[1].as_mut(),
            scale * scale,
            three.as_ref(),
            ra.transpose(),
        );
    }
}
