//! One adapter's step: what it reads, what it leads to, and how that is written.

use lora_pro_core::backend::{AdapterSlot, Buffer, Control, Factor, StateKind, ratio_or_zero};
use lora_pro_core::{AdapterIo, AdapterReport, Error};

use super::moments::{load_state, state_tensors};
use super::storage::{
    check_representable, matrix, new_buffers, read_finite, read_through_master, replace_buffers,
    round_to_master, store,
};
use crate::NAME;
use crate::factors::{FactorPair, Factors};
use crate::quirk::SecondMomentQuirk;
use crate::step::step;
use crate::update::{StepOutcome, StepParams, Update};

const MASTER_A: StateKind = StateKind::Master(Factor::A);
const MASTER_B: StateKind = StateKind::Master(Factor::B);

/// Everything that a step of one adapter writes, checked.
pub(super) struct AdapterStep {
    factors: Factors,
    w0_decay: f64,
    buffers: Vec<Buffer>,
    report: AdapterReport,
}

impl AdapterStep {
    /// The step along `gradient`, which is scaled and not yet clipped. Nothing is written.
    pub fn compute(
        slot: &AdapterSlot,
        io: &AdapterIo<'_>,
        gradient: &FactorPair,
        grad_clip: f64,
        control: &Control,
        quirk: SecondMomentQuirk,
    ) -> Result<Self, Error> {
        let (state, dtype) = (&slot.state, slot.spec.dtype);
        let subject = slot.spec.subject();
        let factors = read_factors(slot, io)?;
        let params = StepParams {
            hyper: &slot.hyper,
            lr: slot.hyper.lr * control.lr_factor,
            t: slot.state.step + 1,
            quirk,
        };
        let old = load_state(params.hyper, state)?;
        let outcome = step(&params, &factors, &gradient.scaled(grad_clip), &old)
            .map_err(|error| with_adapter(error, &subject))?;
        let report = report(gradient, &factors, &outcome);

        let Update {
            factors: new,
            w0_decay,
            ..
        } = outcome.update;
        let a = round_to_master(new.a, state, MASTER_A);
        let b = round_to_master(new.b, state, MASTER_B);
        check_representable(&a, dtype, &subject, "A after the step")?;
        check_representable(&b, dtype, &subject, "B after the step")?;
        let mut tensors = state_tensors(&outcome.state);
        tensors.extend([(MASTER_A, a.clone()), (MASTER_B, b.clone())]);
        Ok(AdapterStep {
            buffers: new_buffers(state, &tensors, &subject)?,
            factors: Factors { a, b, s: new.s },
            w0_decay,
            report,
        })
    }

    /// Writes factors, W0, state, counter and report. Cannot fail.
    pub fn commit(self, slot: &mut AdapterSlot, io: &mut AdapterIo<'_>) {
        store(&self.factors.a, &mut io.a);
        store(&self.factors.b, &mut io.b);
        if let Some(w0) = io.w0.as_mut().filter(|_| slot.hyper.decay_base) {
            let decayed = matrix(&w0.view()) * self.w0_decay;
            store(&decayed, w0);
        }
        replace_buffers(&mut slot.state, self.buffers);
        slot.state.step += 1;
        slot.report = self.report;
        slot.report.step = slot.state.step;
    }
}

fn read_factors(slot: &AdapterSlot, io: &AdapterIo<'_>) -> Result<Factors, Error> {
    let AdapterSlot { spec, state, .. } = slot;
    let subject = spec.subject();
    let b = read_finite(&io.b.view(), &subject, "B")?;
    let a = read_finite(&io.a.view(), &subject, "A")?;
    Ok(Factors {
        b: read_through_master(b, state, MASTER_B, spec.dtype)?,
        a: read_through_master(a, state, MASTER_A, spec.dtype)?,
        s: spec.s(),
    })
}

/// The report without the counter; `gradient` is not yet clipped.
fn report(gradient: &FactorPair, old: &Factors, outcome: &StepOutcome) -> AdapterReport {
    let change = &outcome.update.change;
    let mut report = AdapterReport::default();
    report.grad_norm = [gradient.a.norm(), gradient.b.norm()].into();
    report.update_norm = [change.a.norm(), change.b.norm()].into();
    report.relative_update = [
        ratio_or_zero(change.a.norm(), old.a.norm()),
        ratio_or_zero(change.b.norm(), old.b.norm()),
    ]
    .into();
    report.equivalent_norm = outcome.equivalent_norm;
    report.clip = outcome.update.clip;
    report
}

/// Puts the adapter's name before an error of its matrices.
fn with_adapter(error: Error, adapter: &str) -> Error {
    match error {
        Error::Invalid {
            subject,
            field,
            value,
            expected,
        } => Error::Invalid {
            subject: format!("{adapter}: {subject}"),
            field,
            value,
            expected,
        },
        Error::NotConverged { .. } => Error::backend(NAME, format!("{adapter}: {error}")),
        other => other,
    }
}
