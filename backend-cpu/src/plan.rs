//! Which adapters are cut up for several threads, and which are stepped by one thread each.

use lora_pro_core::backend::{AdapterSlot, ParamSlot, Slots};
use lora_pro_core::{Method, Parallelism};

use crate::pair::PairWork;
use crate::param::ParamWork;
use crate::threads::Threads;

/// Operations below which starting other threads costs more than it saves.
const SMALL: f64 = 3e6;

/// Marks what is to be split. Also says whether there is work for more than one thread at all.
pub(crate) fn plan(
    threads: &Threads,
    slots: &Slots<'_>,
    adapters: &mut [PairWork],
    params: &mut [ParamWork],
) -> (Parallelism, bool) {
    let listed = slots
        .adapters
        .iter()
        .zip(&*adapters)
        .filter(|(_, work)| work.views.is_some());
    let total: f64 = listed.map(|(slot, _)| pair_cost(slot)).sum();
    let listed = slots
        .params
        .iter()
        .zip(&*params)
        .filter(|(_, work)| work.views.is_some());
    let total = total + listed.map(|(slot, _)| param_cost(slot)).sum::<f64>();

    let large = threads.count > 1 && total > SMALL;
    // Pieces of half a thread's share or less can be dealt out evenly as they are.
    let split = |cost: f64| large && cost > SMALL && cost > total / (2 * threads.count) as f64;
    let mut plan = Parallelism {
        threads: threads.count,
        ..Parallelism::default()
    };
    for (slot, work) in slots.adapters.iter().zip(adapters) {
        work.split = work.views.is_some() && split(pair_cost(slot));
        plan.split += usize::from(work.split);
        plan.whole += usize::from(work.views.is_some() && !work.split);
    }
    for (slot, work) in slots.params.iter().zip(params) {
        work.split = work.views.is_some() && split(param_cost(slot));
    }
    (plan, large)
}

/// Roughly, the operations of a step.
fn pair_cost(slot: &AdapterSlot) -> f64 {
    let spec = &slot.spec;
    let (m, n, r) = (spec.m as f64, spec.n as f64, spec.r as f64);
    let thin = (20.0 * r + 60.0) * r * (m + n);
    match slot.hyper.method {
        Method::Full => thin + m * n * (8.0 * r + 40.0),
        _ => thin,
    }
}

fn param_cost(slot: &ParamSlot) -> f64 {
    (slot.spec.rows * slot.spec.cols) as f64 * 40.0
}
