//! Steps along the adjusted gradients of A and B: lora, sgd, efficient, and the full mode's end.

use lora_pro_core::Method;
use lora_pro_core::backend::{AdapterSlot, Factor, Moment, StateKind};

use super::{MASTER, PairViews, PairWork, Step, Update, update_clip};
use crate::kernels::AdamNumbers;
use crate::memory::{Stateful, tensors, thin};
use crate::passes::{Adjustment, Crew, Memories, Rule, Source, Stride, apply};
use crate::scratch::Lead;
use crate::small::{Solved, combine};

/// An element-wise method's moments, by side.
const MOMENTS: [[StateKind; 3]; 2] = [moments(Factor::A), moments(Factor::B)];
const MOMENTUM: [StateKind; 2] = [
    StateKind::Momentum(Factor::A),
    StateKind::Momentum(Factor::B),
];

const fn moments(factor: Factor) -> [StateKind; 3] {
    [
        StateKind::Factor(Moment::First, factor),
        StateKind::Factor(Moment::Second, factor),
        StateKind::Factor(Moment::MaxSecond, factor),
    ]
}

/// What a step of both factors reads besides them.
pub(super) struct Along<'g, T> {
    /// The gradients, by side.
    pub(super) g: [Source<'g, T>; 2],
    /// For plain LoRA: what multiplies them. Otherwise coefficients in the lead's memory do.
    pub(super) raw: Option<T>,
    pub(super) rule: Rule<T>,
}

impl PairWork {
    /// One pass over each factor.
    pub(super) fn on_factors<T: Stateful>(
        &mut self,
        crew: &Crew<'_, T>,
        lead: &mut Lead<T>,
        slot: &mut AdapterSlot,
        views: PairViews,
        step: Step,
    ) -> Update {
        let hyper = &slot.hyper;
        let rule = match hyper.method {
            Method::Sgd if hyper.momentum == 0.0 => Rule::Plain,
            Method::Sgd => Rule::Momentum(T::of(hyper.momentum)),
            _ => Rule::Adam(AdamNumbers::new(hyper, step.t)),
        };
        let raw = (hyper.method == Method::Lora).then(|| T::of(step.gamma));
        if raw.is_none() {
            self.direct(lead, slot.spec.s(), step.gamma);
        }
        let along = Along {
            g: views.g.map(Source::View),
            raw,
            rule,
        };
        self.descend(crew, lead, slot, views, step, along)
    }

    /// The coefficients of (dA, dB): P and what F is multiplied by, of side 0 and of side 1.
    pub(super) fn direct<T: Stateful>(&self, lead: &mut Lead<T>, s: f64, gamma: f64) {
        let Solved { plus, x, q, .. } = &self.solved;
        let factor = gamma / (s * s);
        let [p0, t0, p1, t1, _] = &mut lead.coefficients;
        p0.set(plus[1].as_ref(), factor);
        t0.set(x.as_ref(), 1.0);
        p1.set(plus[0].as_ref(), factor);
        let sum = &mut lead.small.one;
        combine(sum.as_mut(), [(1.0, q.as_ref()), (1.0, x.as_ref())]);
        t1.set_transposed(sum.as_ref(), -1.0);
    }

    /// Steps both factors; where a trust region asks for the length first, after a rehearsal.
    pub(super) fn descend<T: Stateful>(
        &self,
        crew: &Crew<'_, T>,
        lead: &mut Lead<T>,
        slot: &mut AdapterSlot,
        views: PairViews,
        step: Step,
        along: Along<'_, T>,
    ) -> Update {
        let mut pass = |clip: f64, commit: bool| {
            [0, 1].map(|k| {
                let stride = Stride {
                    adjustment: match along.raw {
                        Some(factor) => Adjustment::Raw(factor),
                        None => {
                            let [p, t] = [&lead.coefficients[2 * k], &lead.coefficients[2 * k + 1]];
                            Adjustment::Adjusted(p, t)
                        }
                    },
                    rule: along.rule,
                    decay: T::of(step.decay[k]),
                    lr: T::of(step.lr[k] * clip),
                    round: step.round[k],
                    commit,
                };
                let [one, two, three] = match along.rule {
                    Rule::Plain => [None; 3],
                    Rule::Momentum(_) => [Some(MOMENTUM[k]), None, None],
                    Rule::Adam(_) => MOMENTS[k].map(Some),
                };
                let kinds = [one, two, three, Some(MASTER[k])];
                let [first, second, largest, master] = tensors(&mut slot.state, kinds);
                let memories = Memories {
                    moments: [first, second, largest].map(thin::<T>),
                    master: thin::<f32>(master),
                };
                apply(
                    crew,
                    &mut lead.sums,
                    views.f[k],
                    along.g[k],
                    memories,
                    stride,
                )
                .sqrt()
            })
        };
        let clip = match slot.hyper.update_clip {
            None => 1.0,
            Some(_) => {
                let norms = pass(1.0, false);
                update_clip(&slot.hyper, self.factor_norms(), norms)
            }
        };
        Update {
            norms: pass(clip, true),
            clip,
        }
    }
}
