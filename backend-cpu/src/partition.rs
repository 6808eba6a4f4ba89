//! Which adapters are cut up for several threads, and which are stepped by one thread each.

use lora_pro_core::backend::{AdapterSlot, ParamSlot, Slots};
use lora_pro_core::{Method, Parallelism};

use crate::adapter::AdapterWork;
use crate::param::ParamWork;

/// Operations below which starting other threads costs more than it saves.
const SMALL: f64 = 3e6;

/// Marks what is to be split, among what is stepped. Also says whether there is work for more than
/// one thread at all.
pub(crate) fn partition(
    threads: usize,
    slots: &Slots<'_>,
    adapters: &mut [AdapterWork],
    params: &mut [ParamWork],
) -> (Parallelism, bool) {
    let stepped = slots.adapters.iter().zip(&*adapters);
    let stepped = stepped.filter(|(_, work)| work.listed);
    let of_adapters: f64 = stepped.map(|(slot, _)| adapter_cost(slot)).sum();
    let stepped = slots.params.iter().zip(&*params);
    let stepped = stepped.filter(|(_, work)| work.listed);
    let of_params: f64 = stepped.map(|(slot, _)| param_cost(slot)).sum();
    let all = of_adapters + of_params;

    let large = threads > 1 && all > SMALL;
    // Pieces of half a thread's share or less can be dealt out evenly as they are.
    let split = |cost: f64| large && cost > SMALL && cost > all / (2 * threads) as f64;
    let mut parallelism = Parallelism {
        threads,
        ..Parallelism::default()
    };
    for (slot, work) in slots.adapters.iter().zip(adapters) {
        work.split = work.listed && split(adapter_cost(slot));
        parallelism.split += usize::from(work.split);
        parallelism.whole += usize::from(work.listed && !work.split);
    }
    for (slot, work) in slots.params.iter().zip(params) {
        work.split = work.listed && split(param_cost(slot));
    }
    (parallelism, large)
}

/// Roughly, the operations of a step.
fn adapter_cost(slot: &AdapterSlot) -> f64 {
    let spec = &slot.spec;
    let (m, n, r) = (spec.m as f64, spec.n as f64, spec.r as f64);
    let thin = (20.0 * r + 60.0) * r * (m + n);
    match slot.hyper.method {
        Method::Full => thin + m * n * (8.0 * r + 40.0),
        Method::Lora | Method::Sgd | Method::Efficient | Method::Factored => thin,
    }
}

fn param_cost(slot: &ParamSlot) -> f64 {
    (slot.spec.rows * slot.spec.cols) as f64 * 40.0
}
