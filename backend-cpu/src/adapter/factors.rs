//! Steps along the adjusted gradients of A and B: lora, sgd, efficient, and the full mode's end.

use lora_pro_core::Hyper;

use super::{AdapterStep, StepParams, Update, update_clip};
use crate::kernels::AdamNumbers;
use crate::panel::Panel;
use crate::parallel::ParallelCtx;
use crate::passes::{Adjustment, FactorMut, Mode, ThinInput, UpdateParams, UpdateRule, update};
use crate::rank_sized::{GramInverses, InnerTerms, Square, combine};
use crate::typed_state::{AdamMoments, MomentElement};
use crate::workspace::{DirectionCoefficients, Sum};

/// A rule for each factor.
type Rules<'m, T> = [UpdateRule<T, &'m mut Panel<T>>; 2];

impl<T: MomentElement> AdapterStep<'_, '_, T> {
    /// AdamW on the raw gradients.
    pub(super) fn lora(self, moments: [AdamMoments<&mut Panel<T>>; 2]) -> Update {
        let rules = self.adam(moments);
        let adjustment = Adjustment::Raw(T::of(self.params.gamma));
        self.along_gradients(rules, Some(adjustment))
    }

    /// (dA, dB), or their momentum.
    pub(super) fn sgd(self, momentum: Option<[&mut Panel<T>; 2]>) -> Update {
        let mu = T::of(self.hyper.momentum);
        let rules = match momentum {
            None => [UpdateRule::Plain, UpdateRule::Plain],
            Some(momentum) => momentum.map(|momentum| UpdateRule::Momentum { mu, momentum }),
        };
        self.along_gradients(rules, None)
    }

    /// AdamW on (dA, dB).
    pub(super) fn efficient(self, moments: [AdamMoments<&mut Panel<T>>; 2]) -> Update {
        let rules = self.adam(moments);
        self.along_gradients(rules, None)
    }

    fn adam<'m>(&self, moments: [AdamMoments<&'m mut Panel<T>>; 2]) -> Rules<'m, T> {
        let numbers = AdamNumbers::new(self.hyper, self.params.t);
        moments.map(|moments| UpdateRule::Adam { numbers, moments })
    }

    /// One pass over each factor; `None` for the closed form of the gradients.
    fn along_gradients(
        mut self,
        rules: Rules<'_, T>,
        adjustment: Option<Adjustment<'_, T>>,
    ) -> Update {
        let StepParams { s, gamma, .. } = self.params;
        let workspace = &mut *self.workspace;
        let direction = &mut workspace.coefficients.direction;
        let adjustments = match adjustment {
            Some(raw) => [raw; 2],
            None => {
                let (inverses, terms) = (&self.work.inverses, &self.work.terms);
                let factor = gamma / (s * s);
                set_direction(direction, inverses, terms, factor, &mut workspace.square);
                direction.each_ref().map(Adjustment::Adjusted)
            }
        };
        let factors = {
            let [a, b] = &mut self.views.f;
            let [master_a, master_b] = &mut self.masters;
            let [rule_a, rule_b] = rules;
            [(a, rule_a, master_a), (b, rule_b, master_b)].map(|(f, rule, master)| FactorMut {
                f: f.reborrow(),
                rule,
                master: master.as_deref_mut(),
            })
        };
        let descent = Descent {
            ctx: self.ctx,
            sums: &mut workspace.sums,
            factors,
            g: self.views.g.map(ThinInput::View),
            adjustments,
        };
        descent.run(&self.params, self.hyper, self.work.factor_norms())
    }
}

/// The coefficients of (dA, dB), where P is `factor` times an inverse.
pub(super) fn set_direction<T: MomentElement>(
    [a, b]: &mut [DirectionCoefficients<T>; 2],
    inverses: &GramInverses,
    terms: &InnerTerms,
    factor: f64,
    sum: &mut Square,
) {
    let [sa, sb] = &inverses.0;
    a.p.set(sb.inverse.as_ref(), factor);
    a.t.set(terms.x.as_ref(), 1.0);
    b.p.set(sa.inverse.as_ref(), factor);
    combine(
        sum.as_mut(),
        [(1.0, terms.q.as_ref()), (1.0, terms.x.as_ref())],
    );
    b.t.set_transposed(sum.as_ref(), -1.0);
}

/// A step of both factors along given directions.
pub(super) struct Descent<'d, T> {
    pub(super) ctx: &'d ParallelCtx<'d, T>,
    pub(super) sums: &'d mut Vec<Sum>,
    pub(super) factors: [FactorMut<'d, T>; 2],
    pub(super) g: [ThinInput<'d, T>; 2],
    pub(super) adjustments: [Adjustment<'d, T>; 2],
}

impl<T: MomentElement> Descent<'_, T> {
    /// Steps; where a trust region needs the length first, after a dry run.
    pub(super) fn run(
        mut self,
        params: &StepParams,
        hyper: &Hyper,
        factor_norms: [f64; 2],
    ) -> Update {
        let clip = match hyper.update_clip {
            None => 1.0,
            Some(_) => update_clip(hyper, factor_norms, self.pass(params, 1.0, Mode::DryRun)),
        };
        Update {
            norms: self.pass(params, clip, Mode::Commit),
            clip,
        }
    }

    /// |lr dA| and |lr dB|.
    fn pass(&mut self, params: &StepParams, clip: f64, mode: Mode) -> [f64; 2] {
        [0, 1].map(|k| {
            let params = UpdateParams {
                g: self.g[k],
                adjustment: self.adjustments[k],
                decay: T::of(params.decay[k]),
                lr: T::of(params.lr[k] * clip),
                round: params.round[k],
                mode,
            };
            let (sums, factor) = (&mut *self.sums, &mut self.factors[k]);
            update(self.ctx, sums, factor, &params).sqrt()
        })
    }
}
