//! The factored mode: three passes over thin tiles, with r x r work between them.

use lora_pro_core::backend::{AdapterSlot, StateKind};

use super::{MASTER, PairViews, PairWork, Step, Update, update_clip};
use crate::memory::{Stateful, tensors, thin};
use crate::passes::{
    Advancing, Averaging, Carrying, Crew, Momentum, Source, advance, average, carry,
};
use crate::scratch::{Lead, Sum};
use crate::small::{Solved, Square, combine};

/// The state by side: the first moment, the means of E.E and the largest of them.
const STATE: [[StateKind; 3]; 2] = [
    [
        StateKind::TangentY,
        StateKind::ColMeans,
        StateKind::MaxColMeans,
    ],
    [
        StateKind::TangentZ,
        StateKind::RowMeans,
        StateKind::MaxRowMeans,
    ],
];

impl PairWork {
    pub(super) fn factored<T: Stateful>(
        &mut self,
        crew: &Crew<'_, T>,
        lead: &mut Lead<T>,
        slot: &mut AdapterSlot,
        views: PairViews,
        step: Step,
    ) -> Update {
        self.average(crew, lead, slot, views, step);
        self.choose_for_n(lead, slot, step);
        let norms = self.advance(crew, lead, slot, step, 1.0);
        let clip = update_clip(&slot.hyper, self.factor_norms(), norms);
        let norms = match clip {
            1.0 => norms,
            clip => self.advance(crew, lead, slot, step, clip),
        };
        self.carry(crew, lead, slot, views, step);
        Update { norms, clip }
    }

    /// Averages E into the state; leaves `F w F'` and `F w Y'`. Rows come first: the weights of
    /// the columns need the mean of the rows.
    fn average<T: Stateful>(
        &self,
        crew: &Crew<'_, T>,
        lead: &mut Lead<T>,
        slot: &mut AdapterSlot,
        views: PairViews,
        step: Step,
    ) {
        let (s, hyper, lens) = (slot.spec.s(), slot.hyper, [slot.spec.n, slot.spec.m]);
        let c2 = correction(hyper.beta2, step.t);
        let Solved {
            plus, q, hh, fh, ..
        } = &self.solved;
        let mut weight = c2.sqrt();
        for k in [1, 0] {
            let other = 1 - k;
            let Lead {
                coefficients: [hg, hf, s_other, m_other, k_other],
                ..
            } = lead;
            hg.set(plus[other].as_ref(), step.gamma / s);
            hf.set_transposed(q.as_ref(), -s);
            s_other.set(self.sides[other].ff.as_ref(), 1.0);
            m_other.set(fh[other].as_ref(), 2.0);
            k_other.set(hh[other].as_ref(), 1.0);
            let with = Averaging {
                split: (&*hg, (k == 1).then_some(&*hf)),
                square: (&*s_other, &*m_other, &*k_other),
                share: T::of(1.0 / lens[other] as f64),
                beta1: hyper.beta1,
                beta2: hyper.beta2,
                weight: T::of(weight),
                eps: T::of(hyper.eps * c2.sqrt()),
            };
            let [y, sq, largest, master] = tensors(
                &mut slot.state,
                [STATE[k][0], STATE[k][1], STATE[k][2], MASTER[k]],
            );
            // The front made the state of this method's layout.
            let (Some(y), Some(sq)) = (thin::<T>(y), thin::<T>(sq)) else {
                return;
            };
            let state = Momentum {
                y,
                sq,
                largest: thin::<T>(largest),
            };
            let f = match thin::<f32>(master) {
                None => Source::View(views.f[k]),
                Some(master) => Source::Master(views.f[k], master),
            };
            let scratch = [&mut lead.old[k], &mut lead.weights[k]];
            let g = Source::View(views.g[k]);
            let sum = average(crew, &mut lead.sums, [f, g], state, scratch, with);
            unpack(sum, &mut lead.small.weighted[k]);
            if k == 1 {
                weight = c2.sqrt() * (sum.scalar / lens[1] as f64 / c2).sqrt();
            }
        }
    }

    /// X and Q for N, of which `B'N A' = (1 / c1) [(B'Da B)(Y Db A') + (B'Da Z)(A Db A')]`.
    fn choose_for_n<T: Stateful>(&mut self, lead: &mut Lead<T>, slot: &AdapterSlot, step: Step) {
        let s = slot.spec.s();
        let [[waa, way], [wbb, wbz]] = &lead.small.weighted;
        let first = [wbb.as_ref(), way.transpose()];
        let second = [wbz.as_ref(), waa.as_ref()];
        self.solved.look_at(&mut lead.work, [first, second]);
        let gamma = s / correction(slot.hyper.beta1, step.t);
        self.solved.choose(&mut lead.work, slot.hyper.x, s, gamma);
    }

    /// Steps both factors in scratch memory: `D = (T1 Y + T2 F) w + T3 F`, with
    /// `T1 = S^+ (F w F') / (s c1)` and `T2 = S^+ (F w Y') / (s c1)` of the other side, and T3 = X
    /// or -(Q + X)'. Leaves `F1 [F1; F; Y]'`; returns the updates' lengths.
    fn advance<T: Stateful>(
        &self,
        crew: &Crew<'_, T>,
        lead: &mut Lead<T>,
        slot: &mut AdapterSlot,
        step: Step,
        clip: f64,
    ) -> [f64; 2] {
        let Solved { x, q, .. } = &self.solved;
        let factor = 1.0 / (slot.spec.s() * correction(slot.hyper.beta1, step.t));
        [0, 1].map(|k| {
            let other = 1 - k;
            let Lead {
                coefficients: [t1, t2, t3, ..],
                small,
                work,
                ..
            } = lead;
            for (t, w) in [&mut *t1, &mut *t2].into_iter().zip(&small.weighted[other]) {
                self.solved
                    .solve(work, other, small.one.as_mut(), factor, w.as_ref());
                t.set(small.one.as_ref(), 1.0);
            }
            if k == 0 {
                t3.set(x.as_ref(), 1.0);
            } else {
                combine(small.one.as_mut(), [(1.0, q.as_ref()), (1.0, x.as_ref())]);
                t3.set_transposed(small.one.as_ref(), -1.0);
            }
            let with = Advancing {
                t: [&*t1, &*t2, &*t3],
                decay: T::of(step.decay[k]),
                lr: T::of(step.lr[k] * clip),
            };
            let [y] = tensors(&mut slot.state, [STATE[k][0]]);
            let Some(y) = thin::<T>(y) else { return 0.0 };
            let panels = [&*y, &lead.old[k], &lead.weights[k]];
            let sum = advance(crew, &mut lead.sums, panels, &mut lead.new[k], with);
            unpack(sum, &mut small.advanced[k]);
            sum.scalar.sqrt()
        })
    }

    /// Carries M = B Y + Z A over to the new factors, and writes them:
    ///
    /// ```text
    /// Y  <- SB1^+ [(B1'B) Y + (B1'Z) A]
    /// Z' <- SA1^+ [(A1 Y')B' + (A1 A')Z'] - (SB1^+ B1'M A1' SA1^+)' B1'
    /// ```
    fn carry<T: Stateful>(
        &mut self,
        crew: &Crew<'_, T>,
        lead: &mut Lead<T>,
        slot: &mut AdapterSlot,
        views: PairViews,
        step: Step,
    ) {
        let spec = &slot.spec;
        let Lead { small, work, .. } = lead;
        let [[saa, a1a, a1y], [sbb, b1b, b1z]] = &small.advanced;
        let grams = [saa.as_ref(), sbb.as_ref()];
        self.solved
            .decompose(work, grams, [spec.n, spec.m], slot.hyper.damping);
        let first = [b1b.as_ref(), a1y.transpose()];
        let second = [b1z.as_ref(), a1a.transpose()];
        self.solved.look_at(work, [first, second]);
        self.solved.inside(work, small.two.as_mut(), 1.0);
        for k in [0, 1] {
            let other = 1 - k;
            let Lead {
                coefficients: [t1, t2, t3, ..],
                small,
                work,
                ..
            } = lead;
            for (t, x) in [&mut *t1, &mut *t2]
                .into_iter()
                .zip(&small.advanced[other][1..])
            {
                self.solved
                    .solve(work, other, small.one.as_mut(), 1.0, x.as_ref());
                t.set(small.one.as_ref(), 1.0);
            }
            t3.set_transposed(small.two.as_ref(), -1.0);
            let with = Carrying {
                t: [&*t1, &*t2],
                inside: (k == 1).then_some(&*t3),
                round: step.round[k],
            };
            let [y, master] = tensors(&mut slot.state, [STATE[k][0], MASTER[k]]);
            let Some(y) = thin::<T>(y) else { return };
            let panels = [&mut lead.old[k], &mut lead.new[k]];
            carry(crew, views.f[k], thin::<f32>(master), y, panels, with);
        }
    }
}

/// 1 - beta^t.
fn correction(beta: f64, t: u64) -> f64 {
    1.0 - beta.powf(t as f64)
}

/// A pass's products, r x (N r) row by row, as N matrices.
fn unpack<const N: usize>(sum: &Sum, out: &mut [Square; N]) {
    let r = out[0].nrows();
    for (k, matrix) in out.iter_mut().enumerate() {
        for j in 0..r {
            for i in 0..r {
                matrix[(i, j)] = sum.products[i * N * r + k * r + j];
            }
        }
    }
}
