//! The full mode: form E's factors, one pass over the moments, and the closed form of N.

use lora_pro_core::backend::{AdapterSlot, Moment, State, StateKind};

use super::factors::Along;
use super::{PairViews, PairWork, Step, Update, factors};
use crate::codes::Code;
use crate::kernels::AdamNumbers;
use crate::memory::{Memory, Stateful, tensors};
use crate::panel::{HEIGHT, Panel};
use crate::passes::{
    Coded, Crew, Rule, Shorter, Source, WideOperands, by_rows, form, gather, group, survey,
    to_panel, wide,
};
use crate::rounding::Seed;
use crate::scratch::Lead;
use crate::simd::WIDTH;
use crate::small::Solved;
use crate::spread::Slices;

impl PairWork {
    pub(super) fn full<T: Stateful>(
        &mut self,
        crew: &Crew<'_, T>,
        lead: &mut Lead<T>,
        slot: &mut AdapterSlot,
        views: PairViews,
        step: Step,
    ) -> Update {
        self.form(crew, lead, slot, views, step);
        reduce(crew, lead, slot, step);

        // N takes the place of g: gA = s B'N, gB = s N A'.
        let s = slot.spec.s();
        let mut panels = [std::mem::take(&mut lead.gan), std::mem::take(&mut lead.gbn)];
        let f = factors(&views, &mut slot.state);
        let before = self.factor_norms();
        for (k, side) in self.sides.iter_mut().enumerate() {
            survey(crew, &mut lead.sums, f[k], Source::Panel(&panels[k]), side);
        }
        debug_assert_eq!(
            before.map(f64::to_bits),
            self.factor_norms().map(f64::to_bits)
        );
        let [a, b] = &self.sides;
        self.solved
            .look(&mut lead.work, a.fg.transpose(), b.fg.as_ref());
        self.solved.choose(&mut lead.work, slot.hyper.x, s, s);
        self.direct(lead, s, s);
        let g = panels.each_ref().map(Source::Panel);
        let along = Along {
            g,
            raw: None,
            rule: Rule::Plain,
        };
        let update = self.descend(crew, lead, slot, views, step, along);
        [lead.gan, lead.gbn] = std::mem::take(&mut panels);
        update
    }

    /// [sU; A] by tiles of columns, [B sV] by rows of tiles.
    fn form<T: Stateful>(
        &self,
        crew: &Crew<'_, T>,
        lead: &mut Lead<T>,
        slot: &mut AdapterSlot,
        views: PairViews,
        step: Step,
    ) {
        let Solved { plus, q, .. } = &self.solved;
        let s = slot.spec.s();
        let f = factors(&views, &mut slot.state);
        let g = views.g.map(Source::View);
        let Lead {
            coefficients: [h0, h1, f1, ..],
            left,
            right,
            old,
            ..
        } = lead;
        h0.set(plus[1].as_ref(), step.gamma / s);
        h1.set(plus[0].as_ref(), step.gamma / s);
        f1.set_transposed(q.as_ref(), -s);
        form(crew, f[0], g[0], (h0, None), true, right);
        form(crew, f[1], g[1], (h1, Some(f1)), false, &mut old[1]);
        by_rows(&old[1], left);
    }
}

/// The wide pass: leaves B'N in `gan`, (N A')' in `gbn`.
fn reduce<T: Stateful>(crew: &Crew<'_, T>, lead: &mut Lead<T>, slot: &mut AdapterSlot, step: Step) {
    let spec = &slot.spec;
    let rows = spec.m.div_ceil(HEIGHT);
    let parts = rows.div_ceil(group(spec.m));
    let Lead {
        left,
        right,
        partial_gan,
        gan,
        gbn_rows,
        gbn,
        ..
    } = lead;
    gbn_rows.resize(rows * spec.r, [T::default(); HEIGHT]);
    if partial_gan.len() < parts {
        partial_gan.resize(parts, Panel::default());
    }
    let partial = &mut partial_gan[..parts];
    partial
        .iter_mut()
        .for_each(|panel| panel.reshape(spec.r, spec.n));
    let operands = WideOperands {
        m: spec.m,
        numbers: AdamNumbers::new(&slot.hyper, step.t),
        left: &*left,
        right: &*right,
        gan: &mut *partial,
        gbn: &mut *gbn_rows,
    };
    let stride = group(spec.m) * spec.n.div_ceil(WIDTH);
    let seeds = [8, 9, 10].map(|tensor| Seed::new(&spec.name, tensor, step.t));
    over_moments(crew, operands, &mut slot.state, stride, seeds);
    gan.reshape(spec.r, spec.n);
    gather(partial, gan);
    gbn.reshape(spec.r, spec.m);
    to_panel(gbn_rows, gbn);
}

/// The wide pass, over whatever the moments are stored as.
fn over_moments<T: Stateful>(
    crew: &Crew<'_, T>,
    operands: WideOperands<'_, T>,
    state: &mut State,
    stride: usize,
    seeds: [Seed; 3],
) {
    let kinds = [
        StateKind::Weight(Moment::First),
        StateKind::Weight(Moment::Second),
        StateKind::Weight(Moment::MaxSecond),
        StateKind::WeightScale(Moment::First),
        StateKind::WeightScale(Moment::Second),
        StateKind::WeightScale(Moment::MaxSecond),
    ];
    let [first, second, largest, scale1, scale2, scale3] = tensors(state, kinds);
    match [first, second, largest] {
        [
            Some(Memory::Wide32(first)),
            Some(Memory::Wide32(second)),
            largest,
        ] => {
            let of = |blocks| T::from32(Slices::new(blocks, stride));
            let largest = match largest {
                Some(Memory::Wide32(largest)) => Some(of(&mut largest.blocks)),
                _ => None,
            };
            wide(
                crew,
                operands,
                [of(&mut first.blocks), of(&mut second.blocks)],
                largest,
            );
        }
        [
            Some(Memory::Wide64(first)),
            Some(Memory::Wide64(second)),
            largest,
        ] => {
            let of = |blocks| T::from64(Slices::new(blocks, stride));
            let largest = match largest {
                Some(Memory::Wide64(largest)) => of(&mut largest.blocks),
                _ => None,
            };
            let moments = [of(&mut first.blocks), of(&mut second.blocks)];
            if let [Some(first), Some(second)] = moments {
                wide(crew, operands, [first, second], largest);
            }
        }
        [
            Some(Memory::Wide16(first)),
            Some(Memory::Wide16(second)),
            largest,
        ] => {
            let of = |blocks| Shorter(Slices::new(blocks, stride));
            let largest = match largest {
                Some(Memory::Wide16(largest)) => Some(of(&mut largest.blocks)),
                _ => None,
            };
            wide(
                crew,
                operands,
                [of(&mut first.blocks), of(&mut second.blocks)],
                largest,
            );
        }
        codes => {
            let mut scales = [scale1, scale2, scale3].into_iter();
            let mut kinds = [Code::Signed, Code::Positive, Code::Positive]
                .into_iter()
                .zip(seeds);
            let [first, second, largest] = codes.map(|codes| {
                let ((code, seed), scales) = (kinds.next()?, scales.next()?);
                match (codes, scales) {
                    (Some(Memory::Codes(codes)), Some(Memory::Scales(scales))) => Some(Coded {
                        codes: Slices::new(&mut codes.blocks[..], stride),
                        scales: Slices::new(&mut scales[..], stride),
                        code,
                        seed,
                        first: 0,
                    }),
                    _ => None,
                }
            });
            if let (Some(first), Some(second)) = (first, second) {
                wide(crew, operands, [first, second], largest);
            }
        }
    }
}
