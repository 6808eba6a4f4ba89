//! Bugs in the factored mode: means and transport.

use lora_pro_core::Damping;
use lora_pro_reference::damping::Grams;
use lora_pro_reference::factored::{first_moment, mean_squares, transported};
use lora_pro_reference::state::{FactoredMoments, Means};

use super::Bug;

pub(super) const BUGS: &[Bug] = &[
    Bug {
        id: "column-eps-left-out",
        what: "no eps on the columns: a column without gradients divides by zero",
        plant: |e| e.column_root = |v, c2, _| (v / c2).sqrt(),
    },
    Bug {
        id: "sums-for-means",
        what: "row and column sums in place of means: N is too small by sqrt(m)",
        plant: |e| {
            e.mean_squares = |e, _| {
                let square = e.component_mul(e);
                Means {
                    row: square.column_sum(),
                    col: square.row_sum(),
                }
            }
        },
    },
    Bug {
        id: "means-over-the-other-side",
        what: "row sums are divided by m and column sums by n: right for square W only",
        plant: |e| {
            e.mean_squares = |e, _| {
                let square = e.component_mul(e);
                Means {
                    row: square.column_sum() / e.nrows() as f64,
                    col: square.row_sum() / e.ncols() as f64,
                }
            }
        },
    },
    Bug {
        id: "row-means-without-cross-terms",
        what: "E.E is taken for (s B U).(s B U) + (s V A).(s V A): right for the columns, where \
               B'V = 0, and wrong for the rows",
        plant: |e| {
            e.mean_squares = |_, parts| {
                let [of_b, of_a] = parts.map(mean_squares);
                Means {
                    row: of_b.row + of_a.row,
                    col: of_b.col + of_a.col,
                }
            }
        },
    },
    Bug {
        id: "overall-mean-not-corrected",
        what: "the mean over all rows is not corrected for its start from 0: early steps are too \
               short by sqrt(1 - b2)",
        plant: |e| e.overall = |mean, _| mean.sqrt(),
    },
    Bug {
        id: "overall-mean-left-out",
        what: "N is divided by the roots of both means, and not multiplied by that of the overall \
               one: steps grow as gradients shrink",
        plant: |e| e.overall = |_, _| 1.0,
    },
    Bug {
        id: "tangent-without-s",
        what: "Y and Z average U and V without s: M is not the running mean of E",
        plant: |e| e.tangent = |_, split| split.clone(),
    },
    Bug {
        id: "not-transported",
        what: "Y and Z stay when A and B have moved: M turns with the factors",
        plant: |e| e.transported = |_, state, _, _| Ok(state.clone()),
    },
    Bug {
        id: "transported-from-new-factors",
        what: "M is formed from the new factors before it is projected on them: it has moved \
               already",
        plant: |e| e.transported = |_, state, new, damping| transported(new, state, new, damping),
    },
    Bug {
        id: "z-not-projected",
        what: "Z lacks I - PB: the part of M that both factors reach counts twice",
        plant: |e| {
            e.transported = |old, state, new, damping| {
                let m = first_moment(old, state);
                let grams = Grams::of(new, damping)?;
                let z = grams.sa_inverse.apply_right(&(m * new.a.transpose()));
                Ok(FactoredMoments {
                    z,
                    ..transported(old, state, new, damping)?
                })
            }
        },
    },
    Bug {
        id: "y-not-transported",
        what: "Z is carried over and Y is not",
        plant: |e| {
            e.transported = |old, state, new, damping| {
                Ok(FactoredMoments {
                    y: state.y.clone(),
                    ..transported(old, state, new, damping)?
                })
            }
        },
    },
    Bug {
        id: "transport-damped",
        what: "the transport always damps with 1e-8, as a port that has it hard-coded there: M \
               fades where B is small",
        plant: |e| {
            e.transported =
                |old, state, new, _| transported(old, state, new, Damping::Absolute(1e-8))
        },
    },
    Bug {
        id: "transport-undamped",
        what: "the transport does not damp where the step does",
        plant: |e| e.transported = |old, state, new, _| transported(old, state, new, Damping::None),
    },
];
