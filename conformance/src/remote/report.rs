//! Reports on steps: what the child tells, and what it leaves out computed from the tensors.

use lora_pro_core::backend::{AdapterSlot, Control, Slots, StepIo, ratio_or_zero};
use lora_pro_core::{AdapterIo, AdapterReport, HostTensor, MatRef, SkippedStep, StepReport};

use super::explain::subject;
use super::protocol::{Report, Stepped};
use super::tensors::entries;

/// The child's report, with what it leaves out computed from the tensors. What cannot be known is
/// NaN. Before anything is written.
pub(super) fn summary(
    slot: &AdapterSlot,
    adapter: &AdapterIo<'_>,
    after: [&HostTensor; 2],
    control: &Control,
    message: Report,
) -> AdapterReport {
    let before = [adapter.a.view(), adapter.b.view()];
    let moved = || [0, 1].map(|k| distance(&before[k], &after[k].view()));
    let update_norm = message.update_norm.unwrap_or_else(moved);
    let relative = || [0, 1].map(|k| ratio_or_zero(update_norm[k], norm(&before[k])));
    let unclipped = if slot.hyper.update_clip.is_none() {
        1.0
    } else {
        f64::NAN
    };
    {
        let mut report = AdapterReport::default();
        report.step = slot.state.step + 1;
        report.grad_norm = [&adapter.grad_a, &adapter.grad_b]
            .map(|grad| norm(grad) * control.grad_scale)
            .into();
        report.update_norm = update_norm.into();
        report.relative_update = message.relative_update.unwrap_or_else(relative).into();
        report.equivalent_norm = message.equivalent_norm.unwrap_or(f64::NAN);
        report.clip = message.clip.unwrap_or(unclipped);
        report
    }
}

/// The report on the whole step, with what the child leaves out.
pub(super) fn whole(
    stepped: &Stepped,
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    control: &Control,
) -> StepReport {
    let skipped = stepped.skipped.as_ref().map(|skipped| SkippedStep {
        subject: subject(&skipped.adapter, slots, io),
        reason: skipped.reason.clone(),
    });
    let grad_norm = stepped.grad_norm.unwrap_or_else(|| {
        let adapters = io
            .adapters
            .iter()
            .flat_map(|adapter| [adapter.grad_a, adapter.grad_b]);
        let all = adapters.chain(io.params.iter().map(|param| param.grad));
        control.grad_scale * all.map(|grad| norm(&grad).powi(2)).sum::<f64>().sqrt()
    });
    let limit = control.max_grad_norm.unwrap_or(f64::INFINITY);
    let clip = if grad_norm > limit {
        limit / grad_norm
    } else {
        1.0
    };
    let grad_clip = stepped.grad_clip.unwrap_or(clip);
    let mut report = StepReport::new(control.lr_factor, grad_norm, grad_clip);
    report.skipped = skipped;
    report
}

fn norm(view: &MatRef<'_>) -> f64 {
    entries(view).map(|(_, _, x)| x * x).sum::<f64>().sqrt()
}

fn distance(x: &MatRef<'_>, y: &MatRef<'_>) -> f64 {
    let squares = entries(x).map(|(i, j, x)| (y.get(i, j) - x).powi(2));
    squares.sum::<f64>().sqrt()
}
