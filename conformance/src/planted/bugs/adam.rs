//! Bugs in Adam: moments, bias correction, eps.

use lora_pro_core::DType;
use lora_pro_reference::adamw::bias_correction;
use lora_pro_reference::factors::FactorPair;

use super::Bug;

pub(super) const BUGS: &[Bug] = &[
    Bug {
        id: "eps-inside-the-root",
        what: "sqrt(V2 + eps): with eps = 1e-8 entries below 1e-4 hardly move",
        plant: |e| e.root = |v, c2, eps| (v / c2 + eps).sqrt(),
    },
    Bug {
        id: "eps-squared",
        what: "eps^2 is added to the root: entries without a gradient move as far as others",
        plant: |e| e.root = |v, c2, eps| (v / c2).sqrt() + eps * eps,
    },
    Bug {
        id: "eps-before-bias-correction",
        what: "(sqrt(V2) + eps) / sqrt(c2): eps is larger in early steps",
        plant: |e| e.root = |v, c2, eps| (v.sqrt() + eps) / c2.sqrt(),
    },
    Bug {
        id: "bias-correction-one-early",
        what: "the counter is read before it is raised: both moments are corrected with t - 1",
        plant: |e| e.counter = |slots, id| slots[id].state.step.max(1),
    },
    Bug {
        id: "bias-correction-one-late",
        what: "both moments are corrected with t + 1: the first step is 0.744 of what it should \
               be",
        plant: |e| e.counter = |slots, id| slots[id].state.step + 2,
    },
    Bug {
        id: "second-moment-not-corrected",
        what: "V2 is not corrected for its start from 0: early steps are 1 / sqrt(1 - b2) times \
               too long",
        plant: |e| e.second_correction = |_, _| 1.0,
    },
    Bug {
        id: "first-moment-not-corrected",
        what: "M is not corrected for its start from 0: early steps are too short",
        plant: |e| e.first_correction = |_, _| 1.0,
    },
    Bug {
        id: "second-moment-corrected-like-the-first",
        what: "V2 is corrected with 0.9^t, which is b1's: early steps are far too long",
        plant: |e| e.second_correction = |_, t| bias_correction(0.9, t),
    },
    Bug {
        id: "betas-swapped",
        what: "b1 and b2 are swapped",
        plant: |e| {
            e.hyper = |slots, id| {
                let hyper = slots[id].hyper;
                hyper.beta1(hyper.beta2).beta2(hyper.beta1)
            }
        },
    },
    Bug {
        id: "beta2-hard-coded",
        what: "b2 is 0.99, whatever is configured",
        plant: |e| e.hyper = |slots, id| (slots[id].hyper).beta2(0.99),
    },
    Bug {
        id: "second-moment-of-raw-gradients",
        what: "the efficient mode squares (gA, gB) into V2, and averages (dA, dB) into M",
        plant: |e| e.squared = |gradients, _| gradients.clone(),
    },
    Bug {
        id: "efficient-is-lora",
        what: "the efficient mode averages (gA, gB): it is plain LoRA with another V2",
        plant: |e| e.averaged = |gradients, _| gradients.clone(),
    },
    Bug {
        id: "squares-of-bf16",
        what: "what is squared goes through bf16, as in the public code: V2 has two digits",
        plant: |e| e.square = |x| x.map(|x| DType::Bf16.round(x).powi(2)),
    },
    Bug {
        id: "absolute-value-for-square",
        what: "|X| in place of X.X: N depends on the size of the gradients",
        plant: |e| e.square = |x| x.abs(),
    },
    Bug {
        id: "first-moment-stale",
        what: "N is made of the M before this step: every step is one late, and the first is none",
        plant: |e| e.numerator = |old, _| old.clone(),
    },
    Bug {
        id: "first-moment-without-one-minus-beta",
        what: "M <- b1 M + X: ten times too large at b1 = 0.9",
        plant: |e| e.first_mean = |beta, mean, x| mean * beta + x,
    },
    Bug {
        id: "moments-in-f32",
        what: "second moments are averaged in f32 where they are stored in f64",
        plant: |e| {
            e.second_mean =
                |beta, mean, x| (mean * beta + x * (1.0 - beta)).map(|v| DType::F32.round(v))
        },
    },
    Bug {
        id: "amsgrad-ignored",
        what: "the maximum of V2 is kept and not used",
        plant: |e| e.second = |_, second| second.clone(),
    },
    Bug {
        id: "amsgrad-of-corrected",
        what: "AMSGrad keeps the maximum of the bias-corrected V2 and corrects it again: the first \
               steps count forever",
        plant: |e| e.largest = |largest, second, c2| largest.sup(&(second / c2)),
    },
    Bug {
        id: "amsgrad-forgets",
        what: "AMSGrad's maximum is V2 itself: it falls again",
        plant: |e| e.largest = |_, second, _| second.clone(),
    },
    Bug {
        id: "momentum-dampened",
        what: "D <- mu D + (1 - mu) (dA, dB): steps are ten times too short at mu = 0.9",
        plant: |e| {
            e.momentum = |mu, old, _, adjusted| FactorPair {
                a: &old.a * mu + &adjusted.a * (1.0 - mu),
                b: &old.b * mu + &adjusted.b * (1.0 - mu),
            }
        },
    },
    Bug {
        id: "momentum-of-raw-gradients",
        what: "momentum averages (gA, gB): the adjustment is lost",
        plant: |e| {
            e.momentum = |mu, old, gradients, _| FactorPair {
                a: &old.a * mu + &gradients.a,
                b: &old.b * mu + &gradients.b,
            }
        },
    },
    Bug {
        id: "momentum-nesterov",
        what: "the step looks ahead: (dA, dB) + mu D in place of D",
        plant: |e| {
            e.along = |mu, momentum, adjusted| FactorPair {
                a: &adjusted.a + &momentum.a * mu,
                b: &adjusted.b + &momentum.b * mu,
            }
        },
    },
    Bug {
        id: "momentum-not-used",
        what: "momentum is kept and not followed",
        plant: |e| e.along = |_, _, adjusted| adjusted.clone(),
    },
];
