//! The bug classes.

use std::collections::BTreeMap;

use super::schema::Flag;

/// The bug classes by name.
pub fn table() -> BTreeMap<String, Flag> {
    let named = |&[name, bug_class, description, effect]: &[&str; 4]| {
        let flag = Flag {
            bug_class: bug_class.into(),
            description: description.into(),
            effect: effect.into(),
        };
        (name.to_string(), flag)
    };
    FLAGS.iter().map(named).collect()
}

/// Name, bug class, description, effect.
const FLAGS: [[&str; 4]; 39] = [
    [
        "AmsGrad",
        "missing maximum",
        "The second moment that divides is the largest so far.",
        "Steps after a burst of large gradients are too long.",
    ],
    [
        "BadCombination",
        "missing validation",
        "Each option is in range, and together they mean nothing.",
        "An option is ignored in silence, or the factors change sign.",
    ],
    [
        "BadNumber",
        "missing validation",
        "A hyper-parameter is out of range or not a number.",
        "A run ends in NaN, or learns nothing and says nothing.",
    ],
    [
        "BadShape",
        "missing validation",
        "Shapes that do not fit each other, or a rank out of range.",
        "A wrong gradient is broadcast or read out of bounds.",
    ],
    [
        "DampingAbsolute",
        "misplaced damping",
        "A number is added to the eigenvalues of both Gram matrices where these are inverted, and nowhere else.",
        "The early steps differ by tens of percent from the public code's.",
    ],
    [
        "DampingCutoff",
        "misplaced damping",
        "Eigenvalues up to a share of the largest count as zero.",
        "A nearly dependent column blows the step up.",
    ],
    [
        "DampingNone",
        "hidden damping",
        "The pseudo-inverse, with nothing added.",
        "The step is not the optimum that it is taken for.",
    ],
    [
        "DampingRelative",
        "misplaced damping",
        "A share of the largest eigenvalue is added, of each Gram matrix its own.",
        "Training depends on the scale of the factors.",
    ],
    [
        "Epsilon",
        "misplaced epsilon",
        "eps is of the size of what it is added to: outside the root, after bias correction.",
        "Entries with small gradients move too far or not at all.",
    ],
    [
        "FirstStep",
        "first-step special case",
        "B = 0: its pseudo-inverse is 0, dA = 0, and B moves.",
        "NaN in the first step, or one of another length.",
    ],
    [
        "IllConditioned",
        "lost precision",
        "Columns that nearly depend on each other, in A and in B.",
        "Noise in the directions that the adapter needs most.",
    ],
    [
        "Incomplete",
        "missing validation",
        "Something that is needed is not there.",
        "A default is used in silence.",
    ],
    [
        "LargestRank",
        "wrong projection",
        "r = min(m, n): E = g, the adapter is full fine-tuning.",
        "Part of the gradient is lost at every rank.",
    ],
    [
        "LongRun",
        "drift",
        "Thirty steps: bias correction, moments and factors stay in step.",
        "Training slowly leaves the path of the formulas.",
    ],
    [
        "LrRatio",
        "misplaced learning-rate ratio",
        "B has a learning rate of its own, as in LoRA+.",
        "The ratio acts on A, on both, or on neither.",
    ],
    [
        "Magnitude",
        "overflow or underflow",
        "Factors or gradients far from 1, and nothing else unusual.",
        "A constant that hides in the code decides over the step.",
    ],
    [
        "Maximize",
        "wrong sign",
        "Ascent: the gradient changes its sign, weight decay does not.",
        "The loss goes the wrong way, or weights grow.",
    ],
    [
        "Momentum",
        "wrong momentum",
        "SGD with momentum on (dA, dB).",
        "Steps too short by 1 - momentum, or a lost memory.",
    ],
    [
        "NoMemory",
        "wrong bias correction",
        "beta1 = beta2 = 0: N = E / (|E| + eps) in every step.",
        "0^0 or a division by zero in the bias correction.",
    ],
    [
        "NotFinite",
        "missing validation",
        "NaN or infinity in a tensor.",
        "One bad batch destroys the adapter and its moments.",
    ],
    [
        "Overflow",
        "missing validation",
        "All inputs are finite, and a result is not.",
        "The factors or moments are infinite from then on.",
    ],
    [
        "PlainLora",
        "wrong baseline",
        "AdamW on the raw gradients.",
        "LoRA-Pro is compared with something that is not LoRA.",
    ],
    [
        "PublicCode",
        "departure from the public code",
        "Recorded from the public code, whose full mode rounds E to bf16 before it is squared.",
        "Published results are not reproduced.",
    ],
    [
        "RankDeficientA",
        "inverse instead of pseudo-inverse",
        "A has fewer independent rows than r.",
        "An infinite step, or an error from a Cholesky factorization.",
    ],
    [
        "RankDeficientB",
        "inverse instead of pseudo-inverse",
        "B has fewer independent columns than r.",
        "An infinite step, or an error from a Cholesky factorization.",
    ],
    [
        "RankOne",
        "lost dimension",
        "r = 1: matrices that some libraries squeeze to vectors.",
        "Wrong products by broadcasting.",
    ],
    [
        "ResumedStart",
        "first-step special case",
        "t = 1 with B not zero: a resumed or otherwise initialised adapter.",
        "The step is that of an adapter with B = 0.",
    ],
    [
        "SecondStep",
        "first-step special case",
        "B is of the size of the learning rate: lr dA is O(1) at any learning rate.",
        "The early path is another one.",
    ],
    [
        "Thin",
        "lost dimension",
        "m = 1 or n = 1.",
        "Wrong products by broadcasting; means over the wrong axis.",
    ],
    [
        "Unknown",
        "missing validation",
        "A name or an option that is not known.",
        "Another optimizer runs than the one that was asked for.",
    ],
    [
        "UpdateClip",
        "misplaced clip",
        "Both updates are scaled alike, by the relative update of the factor with the larger norm.",
        "The clip turns the step, or stops B from leaving zero.",
    ],
    [
        "WeightDecay",
        "wrong decay",
        "Decoupled; in the full and factored modes each factor has the square root.",
        "W decays twice, or with the gradient's moments.",
    ],
    [
        "XSylvester",
        "wrong X",
        "SB X + X SA = -U A', undamped.",
        "E is right and the factors' balance is not: no test on E finds it.",
    ],
    [
        "XSymmetric",
        "wrong X",
        "X = -(1 / 2 s^2) SB^+ B'gB SA^+; the public code has SA for SA^+.",
        "E is right and the factors' balance is not: no test on E finds it.",
    ],
    [
        "XZero",
        "wrong X",
        "X = 0.",
        "E is right and the factors' balance is not: no test on E finds it.",
    ],
    [
        "ZeroA",
        "first-step special case",
        "A = 0: its pseudo-inverse is 0, dB = 0, and A moves.",
        "NaN, or adapters of embeddings that never move.",
    ],
    [
        "ZeroAdapter",
        "division by zero",
        "A = 0 and B = 0: there is nothing to move.",
        "NaN in an adapter that was switched off.",
    ],
    [
        "ZeroFirstGradient",
        "first-step special case",
        "The first gradient is zero, and B = 0 in the second step too.",
        "0 / 0 in the first step, or a first-step rule that comes one step early.",
    ],
    [
        "ZeroGradient",
        "division by zero",
        "A step without gradient in the midst of training.",
        "NaN, or a step that is skipped although its moments decay.",
    ],
];
