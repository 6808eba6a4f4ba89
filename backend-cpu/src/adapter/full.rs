//! The full mode: form E's factors, one pass over the moments, and the closed form of N.

use super::factors::{Descent, set_direction};
use super::{AdapterStep, StepParams, Update};
use crate::kernels::AdamNumbers;
use crate::panel::{HEIGHT, Panel, WideMatrix};
use crate::parallel::Slices;
use crate::passes::{
    Adjustment, EquivalentPass, FactorMut, MomentTiles, Narrowed, Quantized8, Stacking, ThinInput,
    UpdateRule, WideOperands, by_rows, form_equivalent, gather, gram_pass, group, to_panel,
    wide_pass,
};
use crate::simd::WIDTH;
use crate::typed_state::{AdamMoments, MomentElement, WideMoments};
use crate::workspace::{AdapterWorkspace, FullWorkspace};

impl<T: MomentElement> AdapterStep<'_, '_, T> {
    pub(super) fn full(mut self, moments: WideMoments<'_, T>) -> Update {
        self.form_equivalent();
        let stride = group(self.spec.m) * self.spec.n.div_ceil(WIDTH);
        match moments {
            WideMoments::Exact(moments) => self.reduce(moments.map(|x| tiles(x, stride))),
            WideMoments::F32(moments) => {
                self.reduce(moments.map(|x| Narrowed(tiles(x, stride))));
            }
            WideMoments::Bf16(moments) => {
                self.reduce(moments.map(|x| Narrowed(tiles(x, stride))));
            }
            WideMoments::EightBit(moments) => {
                self.reduce(moments.map(|x| Quantized8::new(x, stride)));
            }
        }
        self.along_n()
    }

    /// [sU; A] by tiles of columns, [B sV] by rows of tiles.
    fn form_equivalent(&mut self) {
        let StepParams { s, gamma, .. } = self.params;
        let AdapterWorkspace {
            coefficients, full, ..
        } = &mut *self.workspace;
        let [of_u, of_v] = &mut coefficients.equivalent;
        let [sa, sb] = &self.work.inverses.0;
        of_u.g.set(sb.inverse.as_ref(), gamma / s);
        of_v.g.set(sa.inverse.as_ref(), gamma / s);
        of_v.f.set_transposed(self.work.terms.q.as_ref(), -s);
        let [a, b] =
            [0, 1].map(|k| ThinInput::factor(self.views.f[k].as_ref(), self.masters[k].as_deref()));
        let [grad_a, grad_b] = self.views.g.map(ThinInput::View);
        let u = EquivalentPass {
            f: a,
            g: grad_a,
            coefficients: of_u,
            has_f_term: false,
            stacking: Stacking::EquivalentFirst,
        };
        let v = EquivalentPass {
            f: b,
            g: grad_b,
            coefficients: of_v,
            has_f_term: true,
            stacking: Stacking::FactorFirst,
        };
        form_equivalent(self.ctx, &mut full.right, &u);
        form_equivalent(self.ctx, &mut full.left_panel, &v);
        by_rows(&full.left_panel, &mut full.left);
    }

    /// The wide pass: leaves B'N and (N A')'.
    fn reduce<M: MomentTiles<T>>(&mut self, moments: AdamMoments<M>) {
        let spec = self.spec;
        let rows = spec.m.div_ceil(HEIGHT);
        let parts = rows.div_ceil(group(spec.m));
        let FullWorkspace {
            left,
            right,
            partial_bt_n,
            bt_n,
            n_at_rows,
            n_at,
            ..
        } = &mut self.workspace.full;
        n_at_rows.resize(rows * spec.r, [T::default(); HEIGHT]);
        if partial_bt_n.len() < parts {
            partial_bt_n.resize(parts, Panel::default());
        }
        let partial = &mut partial_bt_n[..parts];
        partial
            .iter_mut()
            .for_each(|panel| panel.reshape(spec.r, spec.n));
        let operands = WideOperands {
            m: spec.m,
            numbers: AdamNumbers::new(self.hyper, self.params.t),
            left,
            right,
            bt_n: &mut *partial,
            n_at: &mut *n_at_rows,
        };
        wide_pass(self.ctx, operands, moments);
        bt_n.reshape(spec.r, spec.n);
        gather(partial, bt_n);
        n_at.reshape(spec.r, spec.m);
        to_panel(n_at_rows, n_at);
    }

    /// The step along the closed form of N: gA = s B'N, gB = s N A'.
    fn along_n(mut self) -> Update {
        let s = self.params.s;
        let factor = s / (s * s);
        let AdapterWorkspace {
            scratch,
            projection,
            n_terms,
            coefficients,
            square,
            sums,
            full,
            ..
        } = &mut *self.workspace;
        let n = [&full.bt_n, &full.n_at].map(ThinInput::Panel);
        for (k, products) in full.n_products.iter_mut().enumerate() {
            let f = ThinInput::factor(self.views.f[k].as_ref(), self.masters[k].as_deref());
            gram_pass(self.ctx, sums, f, n[k], products);
        }
        let inverses = &self.work.inverses;
        let [a, b] = &full.n_products;
        let (ga_at, bt_gb) = (a.fg.transpose(), b.fg.as_ref());
        let projection = inverses.project_gradients(scratch, projection, ga_at, bt_gb);
        inverses.solve_x(scratch, projection, self.hyper.x, factor, n_terms);

        let direction = &mut coefficients.direction;
        set_direction(direction, inverses, n_terms, factor, square);
        let factors = {
            let [a, b] = &mut self.views.f;
            let [master_a, master_b] = &mut self.masters;
            [(a, master_a), (b, master_b)].map(|(f, master)| FactorMut {
                f: f.reborrow(),
                rule: UpdateRule::Plain,
                master: master.as_deref_mut(),
            })
        };
        let descent = Descent {
            ctx: self.ctx,
            sums,
            factors,
            g: n,
            adjustments: direction.each_ref().map(Adjustment::Adjusted),
        };
        descent.run(&self.params, self.hyper, self.work.factor_norms())
    }
}

/// The tiles of a moment, cut into groups of rows.
fn tiles<W>(matrix: &mut WideMatrix<W>, stride: usize) -> Slices<'_, crate::panel::WideTile<W>> {
    Slices::new(&mut matrix.blocks, stride)
}
