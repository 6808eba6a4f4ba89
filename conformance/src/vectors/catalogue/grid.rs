//! Every method with every X, and with every damping.

use lora_pro_core::{Damping, XChoice};

use super::{ADJUSTED, Vector, each};

/// From 201.
pub fn vectors() -> Vec<Vector> {
    let choices = XS.into_iter().flat_map(|(first, x, name, flag)| {
        let comment = format!("the {name} X");
        let vectors = each(first, &ADJUSTED, &format!("x-{name}"), &comment, &[flag]);
        vectors.into_iter().map(move |vector| Vector {
            hyper: vector.hyper.x(x),
            ..vector
        })
    });
    let dampings = DAMPINGS
        .into_iter()
        .flat_map(|(first, damping, name, comment, flag)| {
            let vectors = each(first, &ADJUSTED, name, comment, &[flag]);
            vectors.into_iter().map(move |vector| Vector {
                hyper: vector.hyper.damping(damping),
                ..vector
            })
        });
    choices.chain(dampings).collect()
}

const XS: [(u32, XChoice, &str, &str); 3] = [
    (201, XChoice::Sylvester, "sylvester", "XSylvester"),
    (205, XChoice::Symmetric, "symmetric", "XSymmetric"),
    (209, XChoice::Zero, "zero", "XZero"),
];

/// Much damping: a mistake in where or what is added is then no matter of the last digits.
const DAMPINGS: [(u32, Damping, &str, &str, &str); 4] = [
    (
        221,
        Damping::None,
        "damping-none",
        "the pseudo-inverse as it is",
        "DampingNone",
    ),
    (
        225,
        Damping::Absolute(0.03),
        "damping-absolute",
        "0.03 is added to both Gram matrices where they are inverted, and not in the Sylvester equation",
        "DampingAbsolute",
    ),
    (
        229,
        Damping::Relative(0.05),
        "damping-relative",
        "0.05 of the largest eigenvalue is added to each Gram matrix",
        "DampingRelative",
    ),
    (
        233,
        Damping::Cutoff(0.08),
        "damping-cutoff",
        "the smaller eigenvalue of SB is below 0.08 of the largest and counts as zero, that of SA is not",
        "DampingCutoff",
    ),
];
