//! The vectors that were recorded from other programs.

use super::schema::{Expected, IndexEntry, RECORDED_TOLERANCE, TOLERANCE};

/// What the cases 00 to 07 are about, and their bug classes beside the program's own.
const CASES: [(&str, &[&str]); 8] = [
    ("the plain case", &["FirstStep"]),
    ("ten steps", &["FirstStep"]),
    (
        "wide, small learning rate: the second step is large",
        &["FirstStep", "SecondStep"],
    ),
    ("rank one", &["FirstStep", "RankOne"]),
    (
        "r = min(m, n): the adapter can follow every gradient",
        &["FirstStep", "LargestRank"],
    ),
    ("weight decay, s below 1", &["FirstStep", "WeightDecay"]),
    ("s = 4, B is not zero at the start", &["ResumedStart"]),
    (
        "condition number 1000 of B",
        &["ResumedStart", "IllConditioned"],
    ),
];

/// The ends of the file names in their order, what they say, and their bug class.
const PROGRAMS: [(&str, &str, &str); 7] = [
    (
        "efficient-exact",
        "efficient mode, pseudo-inverse",
        "DampingCutoff",
    ),
    (
        "efficient",
        "efficient mode, absolute damping",
        "DampingAbsolute",
    ),
    ("factored", "factored mode", "DampingAbsolute"),
    (
        "full-symmetric",
        "full mode with the symmetric X",
        "XSymmetric",
    ),
    ("full", "full mode", "DampingAbsolute"),
    (
        "public-full",
        "full mode as the public code computes it",
        "PublicCode",
    ),
    ("sgd", "SGD", "DampingAbsolute"),
];

/// The public code was run on the cases up to this one.
const LAST_PUBLIC: usize = 4;

/// Their entries in the index, numbered from 1.
pub fn entries() -> Vec<IndexEntry> {
    let cases = CASES.iter().enumerate();
    let files = cases.flat_map(|(case, about)| {
        let programs = PROGRAMS.iter();
        programs
            .filter(move |program| program.0 != "public-full" || case <= LAST_PUBLIC)
            .map(move |program| (case, about, program))
    });
    files
        .zip(1..)
        .map(
            |((case, (about, flags), (name, what, flag)), id)| IndexEntry {
                id,
                file: format!("{case:02}-{name}.safetensors"),
                comment: format!("{what}: {about}"),
                flags: flags.iter().chain([flag]).map(|x| x.to_string()).collect(),
                source: source(name).into(),
                expected: expected(name),
            },
        )
        .collect()
}

fn source(name: &str) -> &'static str {
    match name {
        "public-full" => "recorded: the public PyTorch code, run in float64",
        _ => "recorded: an independent numpy program, float64",
    }
}

fn expected(name: &str) -> Expected {
    match name {
        "public-full" => Expected::Valid {
            tolerance: RECORDED_TOLERANCE,
            sensitivity: None,
            reason: Some("the public code's own rounding: 1.1e-9 in the worst case".into()),
        },
        _ => Expected::Valid {
            tolerance: TOLERANCE,
            sensitivity: None,
            reason: None,
        },
    }
}
