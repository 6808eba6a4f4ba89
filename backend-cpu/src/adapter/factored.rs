//! The factored mode: three passes over thin tiles, with r x r work between them.

use super::{AdapterStep, StepParams, Update, update_clip};
use crate::passes::{
    FactorUpdate, MomentUpdate, ThinInput, Transport, transport, update_factor, update_moments,
};
use crate::rank_sized::{Square, combine, multiply};
use crate::typed_state::{MomentElement, TangentState};
use crate::workspace::{AdapterWorkspace, FactoredWorkspace, Sum};

impl<T: MomentElement> AdapterStep<'_, '_, T> {
    pub(super) fn factored(mut self, mut state: [TangentState<'_, T>; 2]) -> Update {
        self.update_moments(&mut state);
        self.solve_for_n();
        let norms = self.update_factors(&state, 1.0);
        let clip = update_clip(self.hyper, self.work.factor_norms(), norms);
        let norms = match clip {
            1.0 => norms,
            clip => self.update_factors(&state, clip),
        };
        self.transport(&mut state);
        Update { norms, clip }
    }

    /// Averages E into the state; leaves `F w F'` and `F w Y'`. Rows come first: the weights of
    /// the columns need the mean of the rows.
    fn update_moments(&mut self, state: &mut [TangentState<'_, T>; 2]) {
        let StepParams { t, s, gamma, .. } = self.params;
        let (hyper, lens) = (self.hyper, [self.spec.n, self.spec.m]);
        let c2 = bias_correction(hyper.beta2, t);
        let mut weight = c2.sqrt();
        for k in [1, 0] {
            let other = 1 - k;
            self.set_square_coefficients(k);
            let AdapterWorkspace {
                coefficients,
                factored,
                sums,
                ..
            } = &mut *self.workspace;
            let equivalent = &mut coefficients.equivalent[k];
            let inverse = &self.work.inverses.0[other].inverse;
            equivalent.g.set(inverse.as_ref(), gamma / s);
            equivalent.f.set_transposed(self.work.terms.q.as_ref(), -s);

            let (view, master) = (self.views.f[k].as_ref(), self.masters[k].as_deref());
            let pass = MomentUpdate {
                f: ThinInput::factor(view, master),
                g: ThinInput::View(self.views.g[k]),
                equivalent,
                has_f_term: k == 1,
                square: &coefficients.square,
                share: T::of(1.0 / lens[other] as f64),
                beta1: hyper.beta1,
                beta2: hyper.beta2,
                weight: T::of(weight),
                eps: T::of(hyper.eps * c2.sqrt()),
            };
            let scratch = [&mut factored.old[k], &mut factored.weights[k]];
            let sum = update_moments(self.ctx, sums, &mut state[k], scratch, &pass);
            let weighted = &mut factored.weighted[k];
            unpack(sum, [&mut weighted.f, &mut weighted.y]);
            if k == 1 {
                weight = c2.sqrt() * (sum.scalar / lens[1] as f64 / c2).sqrt();
            }
        }
    }

    /// What the squares of E's columns on side k are sums of squares of: see [`ColumnRoots`].
    fn set_square_coefficients(&mut self, k: usize) {
        let StepParams { s, gamma, .. } = self.params;
        let (work, other, lens) = (self.work, 1 - k, [self.spec.n, self.spec.m]);
        let AdapterWorkspace {
            coefficients,
            factored,
            scratch,
            square: product,
            ..
        } = &mut *self.workspace;
        let (inverse, of_other) = (&work.inverses.0[other], &work.equivalent[other]);
        let roots = &mut factored.roots;
        roots.compute(scratch, &inverse.eigen, lens[other], of_other);

        let own = work.inverses.0[k].root.transpose();
        let [mut inner, ..] = scratch.matrices(self.spec.r);
        let square = &mut coefficients.square;
        // Rs Hg, with Hg = gamma / s R R' of the other side.
        multiply(
            inner.as_mut(),
            gamma / s,
            roots.s.as_ref(),
            inverse.root.as_ref(),
        );
        multiply(
            product.as_mut(),
            1.0,
            inner.as_ref(),
            inverse.root.transpose(),
        );
        square.g.set(product.as_ref(), 1.0);
        // Rs Hf + Rm R', with Hf = -s Q' on side 1.
        multiply(product.as_mut(), 1.0, roots.m.as_ref(), own);
        if k == 1 {
            multiply(
                inner.as_mut(),
                -s,
                roots.s.as_ref(),
                work.terms.q.transpose(),
            );
            **product += inner.as_ref();
        }
        square.f.set(product.as_ref(), 1.0);
        multiply(product.as_mut(), 1.0, roots.k.as_ref(), own);
        square.k.set(product.as_ref(), 1.0);
        square.positive = roots.positive;
    }

    /// Q and X of N, of which `B'N A' = (1 / c1) [(B'Da B)(Y Db A') + (B'Da Z)(A Db A')]`.
    fn solve_for_n(&mut self) {
        let StepParams { t, s, .. } = self.params;
        let AdapterWorkspace {
            scratch,
            projection,
            n_terms,
            factored,
            ..
        } = &mut *self.workspace;
        let inverses = &self.work.inverses;
        let [a, b] = &factored.weighted;
        let first = [b.f.as_ref(), a.y.transpose()];
        let second = [b.y.as_ref(), a.f.as_ref()];
        let projection = inverses.project_products(scratch, projection, [first, second]);
        // gA = s B'N and gB = s N A' with N = (1 / c1) Da M Db.
        let of_gradient = s / bias_correction(self.hyper.beta1, t);
        let factor = of_gradient / (s * s);
        inverses.solve_x(scratch, projection, self.hyper.x, factor, n_terms);
    }

    /// Steps both factors in scratch memory: `D = (Ty Y + Tf F) w + Tx F`, with
    /// `Ty = S^+ (F w F') / (s c1)` and `Tf = S^+ (F w Y') / (s c1)` of the other side, and Tx = X
    /// or -(Q + X)'. Leaves `F1 [F1; F; Y]'`; returns the updates' lengths.
    fn update_factors(&mut self, state: &[TangentState<'_, T>; 2], clip: f64) -> [f64; 2] {
        let StepParams {
            t, s, decay, lr, ..
        } = self.params;
        let factor = 1.0 / (s * bias_correction(self.hyper.beta1, t));
        [0, 1].map(|k| {
            let other = 1 - k;
            let AdapterWorkspace {
                coefficients,
                scratch,
                square,
                n_terms,
                factored,
                sums,
                ..
            } = &mut *self.workspace;
            let FactoredWorkspace {
                old,
                new,
                weights,
                weighted,
                updated,
                ..
            } = factored;
            let coefficients = &mut coefficients.factor_update;
            let inverse = &self.work.inverses.0[other];
            for (out, weighted) in [
                (&mut coefficients.y, &weighted[other].f),
                (&mut coefficients.f, &weighted[other].y),
            ] {
                inverse.apply(scratch, square.as_mut(), factor, weighted.as_ref());
                out.set(square.as_ref(), 1.0);
            }
            let (q, x) = (n_terms.q.as_ref(), n_terms.x.as_ref());
            if k == 0 {
                coefficients.x.set(x, 1.0);
            } else {
                combine(square.as_mut(), [(1.0, q), (1.0, x)]);
                coefficients.x.set_transposed(square.as_ref(), -1.0);
            }
            let pass = FactorUpdate {
                y: state[k].y,
                f: &old[k],
                weights: &weights[k],
                coefficients,
                decay: T::of(decay[k]),
                lr: T::of(lr[k] * clip),
            };
            let sum = update_factor(self.ctx, sums, &mut new[k], &pass);
            let updated = &mut updated[k];
            unpack(sum, [&mut updated.f1, &mut updated.f, &mut updated.y]);
            sum.scalar.sqrt()
        })
    }

    /// Projects M = B Y + Z A on the tangent space of the new factors, and writes these:
    ///
    /// ```text
    /// Y  <- SB1^+ [(B1'B) Y + (B1'Z) A]
    /// Z' <- SA1^+ [(A1 Y')B' + (A1 A')Z'] - (SB1^+ B1'M A1' SA1^+)' B1'
    /// ```
    fn transport(&mut self, state: &mut [TangentState<'_, T>; 2]) {
        self.solve_for_transport();
        for k in [0, 1] {
            let other = 1 - k;
            let AdapterWorkspace {
                coefficients,
                scratch,
                square,
                factored,
                ..
            } = &mut *self.workspace;
            let coefficients = &mut coefficients.transport;
            let inverse = &factored.new_inverses.0[other];
            for (out, product) in [
                (&mut coefficients.y, &factored.updated[other].f),
                (&mut coefficients.f, &factored.updated[other].y),
            ] {
                inverse.apply(scratch, square.as_mut(), 1.0, product.as_ref());
                out.set(square.as_ref(), 1.0);
            }
            coefficients
                .f1
                .set_transposed(factored.inner.as_ref(), -1.0);
            let pass = Transport {
                old: &factored.old[k],
                coefficients,
                has_f1_term: k == 1,
                round: self.params.round[k],
            };
            let view = self.views.f[k].reborrow();
            let master = self.masters[k].as_deref_mut();
            let new = &mut factored.new[k];
            transport(self.ctx, view, master, state[k].y, new, &pass);
        }
    }

    /// The inverses of the new Gram matrices, and SB1^+ B1'M A1' SA1^+ with
    /// `B1'M A1' = (B1'B)(Y A1') + (B1'Z)(A A1')`.
    fn solve_for_transport(&mut self) {
        let AdapterWorkspace {
            scratch,
            projection,
            factored,
            ..
        } = &mut *self.workspace;
        let FactoredWorkspace {
            updated: [a, b],
            new_inverses,
            inner,
            ..
        } = factored;
        let grams = [a.f1.as_ref(), b.f1.as_ref()];
        let lens = [self.spec.n, self.spec.m];
        new_inverses.compute(scratch, grams, lens, self.hyper.damping);
        let first = [b.f.as_ref(), a.y.transpose()];
        let second = [b.y.as_ref(), a.f.transpose()];
        let projection = new_inverses.project_products(scratch, projection, [first, second]);
        new_inverses.solve_both_sides(scratch, projection, inner.as_mut(), 1.0);
    }
}

/// `1 - beta^t`: the bias correction of a mean that starts at 0.
fn bias_correction(beta: f64, t: u64) -> f64 {
    1.0 - beta.powf(t as f64)
}

/// A pass's products, r x (N r) row by row, as N matrices.
fn unpack<const N: usize>(sum: &Sum, out: [&mut Square; N]) {
    let r = out[0].nrows();
    for (k, matrix) in out.into_iter().enumerate() {
        for j in 0..r {
            for i in 0..r {
                matrix[(i, j)] = sum.products[i * N * r + k * r + j];
            }
        }
    }
}
