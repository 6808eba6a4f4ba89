//! Bugs in the steps of parameters without a pair.

use lora_pro_core::backend::StepIo;
use lora_pro_reference::adamw::{adam, adam_with_square};
use lora_pro_reference::state::Moments;
use nalgebra::DMatrix;

use super::Bug;

pub(super) const BUGS: &[Bug] = &[
    Bug {
        id: "unpaired-without-decay",
        what: "parameters without a pair do not decay",
        plant: |e| e.param_hyper = |hyper| (*hyper).weight_decay(0.0),
    },
    Bug {
        id: "unpaired-decay-at-the-root",
        what: "parameters without a pair decay by the root that is meant for A and B",
        plant: |e| {
            e.param_hyper = |hyper| {
                (*hyper).weight_decay(
                    (1.0 - (1.0 - hyper.lr * hyper.weight_decay).sqrt())
                        / hyper.lr.max(f64::MIN_POSITIVE),
                )
            }
        },
    },
    Bug {
        id: "unpaired-not-in-the-global-norm",
        what: "the global norm counts the adapters only: a head with large gradients is not \
               clipped",
        plant: |e| e.global_norm = |adapters, _| adapters.iter().sum::<f64>().sqrt(),
    },
    Bug {
        id: "unpaired-not-corrected",
        what: "parameters without a pair have no bias correction: their first steps are 3.2 times \
               too long",
        plant: |e| e.param_adam = |hyper, old, g, _| adam(hyper, old, g, 1 << 40),
    },
    Bug {
        id: "unpaired-without-momentum",
        what: "parameters without a pair do not use their first moment",
        plant: |e| {
            e.param_adam = |hyper, old, g, t| {
                let forgetful = (*hyper).beta1(0.0);
                adam(&forgetful, old, g, t)
            }
        },
    },
    Bug {
        id: "unpaired-maximize-ignored",
        what: "parameters without a pair descend where the adapters ascend",
        plant: |e| e.param_hyper = |hyper| (*hyper).maximize(false),
    },
    Bug {
        id: "unpaired-amsgrad-ignored",
        what: "parameters without a pair divide by V2 where AMSGrad's maximum is asked for",
        plant: |e| {
            e.param_adam = |hyper, old, g, t| {
                let plain = Moments {
                    largest: None,
                    ..old.clone()
                };
                let (_, n) = adam(hyper, &plain, g, t);
                (adam(hyper, old, g, t).0, n)
            }
        },
    },
    Bug {
        id: "unpaired-second-moment-shared",
        what: "one second moment for a whole parameter without a pair: all of its entries move \
               alike",
        plant: |e| {
            e.param_adam = |hyper, old, g, t| {
                let mean = g.norm_squared() / g.len().max(1) as f64;
                let square = DMatrix::from_element(g.nrows(), g.ncols(), mean);
                adam_with_square(hyper, old, g, &square, t)
            }
        },
    },
    Bug {
        id: "unpaired-checked-last",
        what: "adapters are written before the gradients of parameters without a pair are checked",
        plant: |e| e.before_checks = adapters_first,
    },
];

/// Moves the adapters where another parameter's gradient is about to be refused.
fn adapters_first(io: &mut StepIo<'_, '_>) {
    let broken = io.params.iter().any(|param| {
        let [rows, cols] = param.grad.shape();
        (0..rows).any(|i| (0..cols).any(|j| !param.grad.get(i, j).is_finite()))
    });
    for pair in io.adapters.iter_mut().filter(|_| broken) {
        let moved = pair.b.get(0, 0) - pair.grad_b.get(0, 0);
        pair.b.set(0, 0, moved);
    }
}
