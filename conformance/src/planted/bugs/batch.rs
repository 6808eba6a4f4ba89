//! Bugs between adapters of one batch, and in their step counters.

use lora_pro_core::backend::AdapterSlot;
use lora_pro_core::{DType, Error};
use lora_pro_reference::factors::FactorPair;
use lora_pro_reference::moments::load_state;
use lora_pro_reference::state::OptimizerState;

use super::Bug;

pub(super) const BUGS: &[Bug] = &[
    Bug {
        id: "counter-shared",
        what: "one counter is raised by every adapter's step: the bias correction of an adapter \
               depends on how many there are",
        plant: |e| {
            e.counter = |slots, id| {
                let all: u64 = slots.iter().map(|slot| slot.state.step).sum();
                all + id as u64 + 1
            }
        },
    },
    Bug {
        id: "counter-raised-twice",
        what: "the counter is raised in the step and once more where it is written back",
        plant: |e| e.counted = |steps| steps + 2,
    },
    Bug {
        id: "counter-not-raised",
        what: "the counter stays at 0: every step is corrected like the first",
        plant: |e| e.counted = |steps| steps,
    },
    Bug {
        id: "moments-shared-by-shape",
        what: "moments are kept by shape: adapters of equal shape continue those of the first",
        plant: |e| {
            e.memory = |slots, id| {
                let shape = |slot: &AdapterSlot| (slot.spec.m, slot.spec.n, slot.spec.r);
                let first = slots
                    .iter()
                    .position(|slot| shape(slot) == shape(&slots[id]));
                load_state(&slots[id].hyper, &slots[first.unwrap_or(id)].state)
            }
        },
    },
    Bug {
        id: "moments-of-a-shared",
        what: "moments are kept by the shape of their tensor: where two layers have the same \
               inputs, their A continue the moments of the first",
        plant: |e| e.memory = |slots, id| of_a_shared(slots, id),
    },
    Bug {
        id: "scale-of-the-first-adapter",
        what: "all adapters are stepped with the scale of the first: alpha_pattern and \
               rank_pattern are ignored",
        plant: |e| e.scale = |slots, _| slots[0].spec.s(),
    },
    Bug {
        id: "hyper-of-the-first-adapter",
        what: "all adapters are stepped with the learning rate of the first: groups are ignored",
        plant: |e| e.hyper = |slots, id| (slots[id].hyper).lr(slots[0].hyper.lr),
    },
    Bug {
        id: "gradients-of-the-first-by-shape",
        what: "adapters of equal shape are given the gradients of the first, as in a batched \
               product with a stride of 0",
        plant: |e| {
            e.gradients_of = |all, k| {
                let shapes = |pair: &FactorPair| (pair.a.shape(), pair.b.shape());
                let first = all.iter().find(|pair| shapes(pair) == shapes(&all[k]));
                first.unwrap_or(&all[k]).clone()
            }
        },
    },
    Bug {
        id: "gradients-of-the-neighbour",
        what: "gA of an adapter is that of the one before where the shapes agree: an offset into \
               packed gradients is one short",
        plant: |e| {
            e.gradients_of = |all, k| {
                let before = &all[k.saturating_sub(1)];
                let a = if before.a.shape() == all[k].a.shape() {
                    &before.a
                } else {
                    &all[k].a
                };
                FactorPair {
                    a: a.clone(),
                    b: all[k].b.clone(),
                }
            }
        },
    },
    Bug {
        id: "rounding-by-position",
        what: "all but the first adapter of a batch are computed with sums in f32: a checkpoint \
               does not continue to the same bits when a layer is added",
        plant: |e| {
            e.gradients_of = |all, k| {
                let round = |x: f64| if k > 0 { DType::F32.round(x) } else { x };
                FactorPair {
                    a: all[k].a.map(round),
                    b: all[k].b.map(round),
                }
            }
        },
    },
    Bug {
        id: "rounding-by-batch-size",
        what: "the order of sums depends on how many adapters there are: the last bit of each",
        plant: |e| {
            e.gradients_of = |all, k| {
                let last_bit = if all.len() > 1 {
                    1.0 + f64::EPSILON
                } else {
                    1.0
                };
                all[k].scaled(last_bit)
            }
        },
    },
];

fn of_a_shared(slots: &[AdapterSlot], id: usize) -> Result<OptimizerState, Error> {
    let first = load_state(&slots[0].hyper, &slots[0].state)?;
    let own = load_state(&slots[id].hyper, &slots[id].state)?;
    Ok(match (first, own) {
        (OptimizerState::Factors(first), OptimizerState::Factors(mut own)) => {
            if first.a.first.shape() == own.a.first.shape() {
                own.a = first.a;
            }
            OptimizerState::Factors(own)
        }
        (_, own) => own,
    })
}
