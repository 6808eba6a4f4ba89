//! Bugs in the options: decay, clips, rates, maximize, schedule.

use lora_pro_core::Method;
use lora_pro_core::backend::{Control, ratio_or_zero};
use lora_pro_reference::clip::update_clip;
use lora_pro_reference::decay::{Decay, decay};
use lora_pro_reference::factors::Factors;

use super::Bug;

pub(super) const BUGS: &[Bug] = &[
    Bug {
        id: "maximize-ignored",
        what: "the loss falls where it should rise",
        plant: |e| e.signs = |_| [1.0; 2],
    },
    Bug {
        id: "maximize-for-b-only",
        what: "A descends where B ascends",
        plant: |e| e.signs = |maximize| [1.0, if maximize { -1.0 } else { 1.0 }],
    },
    Bug {
        id: "lr-ratio-ignored",
        what: "A and B have the same learning rate, whatever is configured",
        plant: |e| e.rates = |lr, _| [lr, lr],
    },
    Bug {
        id: "lr-ratio-on-a",
        what: "the ratio multiplies the learning rate of A",
        plant: |e| e.rates = |lr, ratio| [lr * ratio, lr],
    },
    Bug {
        id: "schedule-ignored",
        what: "the learning rate is the configured one in every step: no warm-up, no decay",
        plant: |e| {
            e.control = |control| Control {
                lr_factor: 1.0,
                ..*control
            }
        },
    },
    Bug {
        id: "decay-after-the-update",
        what: "decay also multiplies the update of the same step",
        plant: |e| e.updated = |old, decay, update| (old - update) * decay,
    },
    Bug {
        id: "decay-ignored",
        what: "A and B do not decay",
        plant: |e| {
            e.decay = |hyper, lr| Decay {
                a: 1.0,
                b: 1.0,
                ..decay(hyper, lr)
            }
        },
    },
    Bug {
        id: "decay-twice-in-full",
        what: "full and factored multiply A and B each by 1 - lr w: B A decays twice as fast",
        plant: |e| {
            e.decay = |hyper, lr| {
                let whole = 1.0 - lr * hyper.weight_decay;
                match hyper.method {
                    Method::Full | Method::Factored => Decay {
                        a: whole,
                        b: whole,
                        w0: whole,
                    },
                    _ => decay(hyper, lr),
                }
            }
        },
    },
    Bug {
        id: "decay-without-lr",
        what: "1 - w in place of 1 - lr w: the adapter is gone after a few steps",
        plant: |e| e.decay = |hyper, _| decay(hyper, 1.0),
    },
    Bug {
        id: "decay-of-b-at-the-rate-of-a",
        what: "B decays with the learning rate of A where the ratio says otherwise",
        plant: |e| {
            e.decay = |hyper, lr| match hyper.method {
                Method::Full | Method::Factored => decay(hyper, lr),
                _ => Decay {
                    b: decay(hyper, lr).a,
                    ..decay(hyper, lr)
                },
            }
        },
    },
    Bug {
        id: "base-decays-unasked",
        what: "W0 decays where it should stay frozen: the base model changes under its adapters",
        plant: |e| e.base = |hyper, lr| Some(1.0 - lr * hyper.weight_decay),
    },
    Bug {
        id: "base-decay-ignored",
        what: "W0 does not decay where it should",
        plant: |e| e.base = |_, _| None,
    },
    Bug {
        id: "base-decays-at-the-root",
        what: "W0 decays by the root that is meant for A and B in full and factored",
        plant: |e| e.base = |hyper, lr| hyper.decay_base.then(|| decay(hyper, lr).a),
    },
    Bug {
        id: "update-clip-per-factor",
        what: "each factor is clipped by itself: E changes its direction",
        plant: |e| {
            e.update_clip = |limit, factors, update| {
                let sizes = [
                    (update.a.norm(), factors.a.norm()),
                    (update.b.norm(), factors.b.norm()),
                ];
                sizes.map(|(update, factor)| match limit {
                    Some(limit) if ratio_or_zero(update, factor) > limit && factor > 0.0 => {
                        limit * factor / update
                    }
                    _ => 1.0,
                })
            }
        },
    },
    Bug {
        id: "update-clip-on-the-smaller-factor",
        what: "the smaller factor decides the clip: B = 0 never leaves its place",
        plant: |e| {
            e.update_clip = |limit, factors, update| {
                let a_is_larger = factors.a.norm() >= factors.b.norm();
                let moved = if a_is_larger {
                    ratio_or_zero(update.b.norm(), factors.b.norm())
                } else {
                    ratio_or_zero(update.a.norm(), factors.a.norm())
                };
                match limit {
                    Some(limit) if moved > limit => [limit / moved; 2],
                    _ => [1.0; 2],
                }
            }
        },
    },
    Bug {
        id: "update-clip-ignored",
        what: "updates are not clipped",
        plant: |e| e.update_clip = |_, _, _| [1.0; 2],
    },
    Bug {
        id: "update-clip-absolute",
        what: "the limit holds for |update|, not for |update| / |factor|",
        plant: |e| {
            e.update_clip = |limit, factors, update| {
                let larger = factors.a.norm().max(factors.b.norm());
                let unit = Factors {
                    a: &factors.a / larger,
                    b: &factors.b / larger,
                    s: factors.s,
                };
                [update_clip(limit, &unit, update); 2]
            }
        },
    },
];
