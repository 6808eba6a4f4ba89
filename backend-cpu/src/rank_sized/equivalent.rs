//! Products of an adapter's thin matrices, and of the two parts of its equivalent gradient
//! `E = B H0 + H1' A` with `H = (sU, sV')`.

use faer::{MatMut, MatRef};

use super::closed_form::GramInverses;
use super::scratch::{RankScratch, combine, multiply, trace_product};
use super::square::Square;

/// Products of one side's factor F and gradient G, all r x r.
#[derive(Clone, Debug, Default)]
pub(crate) struct GramProducts {
    /// F F': the Gram matrix.
    pub(crate) ff: Square,
    /// F G'.
    pub(crate) fg: Square,
    /// G G'.
    pub(crate) gg: Square,
}

impl GramProducts {
    pub(crate) fn reserve(&mut self, r: usize) {
        self.all().for_each(|matrix| matrix.reserve(r));
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        self.all().for_each(|matrix| matrix.fill(f64::NAN));
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Square> {
        [&mut self.ff, &mut self.fg, &mut self.gg].into_iter()
    }
}

/// Products of one side's factor F and part H = R C of the equivalent gradient, with the root R of the
/// other side's inverse. C is not as large as H where the other side is ill-conditioned.
#[derive(Clone, Debug, Default)]
pub(crate) struct EquivalentProducts {
    /// H H'.
    pub(crate) hh: Square,
    /// F H'.
    pub(crate) fh: Square,
    /// C C'; not for plain LoRA, nor is F C'.
    pub(crate) cc: Square,
    /// F C'.
    pub(crate) fc: Square,
}

impl EquivalentProducts {
    fn reserve(&mut self, r: usize) {
        self.all().for_each(|matrix| matrix.reserve(r));
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        self.all().for_each(|matrix| matrix.fill(f64::NAN));
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Square> {
        [&mut self.hh, &mut self.fh, &mut self.cc, &mut self.fc].into_iter()
    }

    /// H H' and F H' from C C' and F C'.
    fn through(&mut self, root: MatRef<'_, f64>, mut temporary: MatMut<'_, f64>) {
        multiply(temporary.as_mut(), 1.0, root, self.cc.as_ref());
        multiply(self.hh.as_mut(), 1.0, temporary.as_ref(), root.transpose());
        multiply(self.fh.as_mut(), 1.0, self.fc.as_ref(), root.transpose());
    }

    /// For H = factor G: plain LoRA's `E = s (B gA + gB A)`.
    pub(crate) fn of_raw(&mut self, products: &GramProducts, factor: f64) {
        self.reserve(products.ff.nrows());
        combine(self.hh.as_mut(), [(factor * factor, products.gg.as_ref())]);
        combine(self.fh.as_mut(), [(factor, products.fg.as_ref())]);
    }
}

/// `||E||`, from `||E||^2 = <SB, H0 H0'> + <SA, H1 H1'> + 2 <B'H1', H0 A'>`.
pub(crate) fn equivalent_norm(sides: &[GramProducts; 2], parts: &[EquivalentProducts; 2]) -> f64 {
    let [a, b] = sides;
    let square = trace_product(b.ff.as_ref(), parts[0].hh.as_ref())
        + trace_product(a.ff.as_ref(), parts[1].hh.as_ref())
        + 2.0 * trace_product(parts[1].fh.as_ref(), parts[0].fh.transpose());
    square.max(0.0).sqrt()
}

impl GramInverses {
    /// The products of both sides, with `scale` = gamma / s.
    ///
    /// ```text
    /// sU  = Rb C    C = scale Rb'gA         C C' = scale^2 Rb' gA gA' Rb
    /// sV' = Ra C    C = scale (yo' - q'B')  with yo = gB Ra, w = B'gB Ra = B'yo, q = SB^+ w
    ///                                       C C' = scale^2 (yo'yo - w'q - q'w + q'SB q)
    /// ```
    pub(crate) fn equivalent_products(
        &self,
        scratch: &mut RankScratch,
        scale: f64,
        sides: &[GramProducts; 2],
        out: &mut [EquivalentProducts; 2],
    ) {
        let [ra, rb] = self.0.each_ref().map(|inverse| inverse.root.as_ref());
        let r = ra.nrows();
        out.iter_mut().for_each(|products| products.reserve(r));
        let [of_u, of_v] = out;
        let [mut one, two, mut three] = scratch.matrices(r);

        multiply(
            one.as_mut(),
            scale * scale,
            rb.transpose(),
            sides[0].gg.as_ref(),
        );
        multiply(of_u.cc.as_mut(), 1.0, one.as_ref(), rb);
        multiply(of_u.fc.as_mut(), scale, sides[0].fg.as_ref(), rb);
        of_u.through(rb, one.as_mut());

        let sb = sides[1].ff.as_ref();
        let (mut w, mut q) = (one, two);
        multiply(w.as_mut(), 1.0, sides[1].fg.as_ref(), ra);
        multiply(three.as_mut(), 1.0, rb.transpose(), w.as_ref());
        multiply(q.as_mut(), 1.0, rb, three.as_ref());
        // C C' / scale^2 = yo'yo - w'q - (w'q)' + q'SB q.
        let mut inner = of_v.cc.as_mut();
        multiply(three.as_mut(), 1.0, ra.transpose(), sides[1].gg.as_ref());
        multiply(inner.as_mut(), 1.0, three.as_ref(), ra);
        multiply(three.as_mut(), 1.0, w.as_ref().transpose(), q.as_ref());
        for j in 0..r {
            for i in 0..r {
                inner[(i, j)] -= three[(i, j)] + three[(j, i)];
            }
        }
        // w - SB q, for F C' and for the last term: q'SB q = q'w - q'(w - SB q).
        multiply(three.as_mut(), -1.0, sb, q.as_ref());
        three += &w;
        combine(of_v.fc.as_mut(), [(scale, three.as_ref())]);
        let mut sb_q = w;
        sb_q -= &three;
        multiply(three.as_mut(), 1.0, q.as_ref().transpose(), sb_q.as_ref());
        inner += &three;
        inner *= faer::Scale(scale * scale);
        of_v.through(ra, three);
    }
}
