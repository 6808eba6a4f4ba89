//! Bugs in U, V and E.

use lora_pro_reference::closed_form::project_out_columns_of_b;
use lora_pro_reference::factors::FactorPair;

use super::Bug;
use crate::planted::Matrix;

pub(super) const BUGS: &[Bug] = &[
    Bug {
        id: "u-without-s-squared",
        what: "U is not divided by s^2: A moves s^2 times too far, and E is no projection",
        plant: |e| e.u = |_, inverse, g| inverse.apply(g),
    },
    Bug {
        id: "v-without-s-squared",
        what: "V is not divided by s^2: B moves s^2 times too far, and E is no projection",
        plant: |e| {
            e.v = |factors, grams, g| {
                let unprojected = grams.sa_inverse.apply_right(g);
                project_out_columns_of_b(&factors.b, &grams.sb_inverse, &unprojected)
            }
        },
    },
    Bug {
        id: "u-over-s",
        what: "U is divided by s in place of s^2: right at s = 1 only",
        plant: |e| e.u = |s, inverse, g| inverse.apply(g) / s,
    },
    Bug {
        id: "scale-doubled",
        what: "the step sees 2 s, as where alpha is applied in the layer and in the optimizer: \
               steps are a quarter as long as they should be",
        plant: |e| e.scale = |slots, id| 2.0 * slots[id].spec.s(),
    },
    Bug {
        id: "v-not-projected",
        what: "V lacks I - PB: the part of g that both factors reach counts twice",
        plant: |e| {
            e.v = |factors, grams, g| grams.sa_inverse.apply_right(g) / (factors.s * factors.s)
        },
    },
    Bug {
        id: "projected-on-both-sides",
        what: "I - PA acts on U as I - PB does on V: the part of g that both factors reach is lost",
        plant: |e| {
            e.adjusted = |factors, split, x| FactorPair {
                a: outside_rows(&factors.a, &split.u) + x * &factors.a,
                b: &split.v - &factors.b * x,
            }
        },
    },
    Bug {
        id: "projector-onto-b",
        what: "PB in place of I - PB: B moves within its own column space only, and never learns \
               a new direction",
        plant: |e| {
            e.v = |factors, grams, g| {
                let all = grams.sa_inverse.apply_right(g) / (factors.s * factors.s);
                let outside = project_out_columns_of_b(&factors.b, &grams.sb_inverse, &all);
                all - outside
            }
        },
    },
    Bug {
        id: "first-step-by-the-counter",
        what: "t = 1 is taken for B = 0, so dA = 0: an adapter whose B starts elsewhere (a second \
               training, PiSSA, a lost optimizer state) loses half of its first step",
        plant: |e| {
            e.special_case = |t, direction| match t {
                1 => FactorPair {
                    a: direction.a * 0.0,
                    ..direction
                },
                _ => direction,
            }
        },
    },
    Bug {
        id: "e-without-s",
        what: "E lacks its factor s: the moments are s times too small, which eps feels, and M \
               jumps when s changes",
        plant: |e| e.equivalent = |factors, split| &factors.b * &split.u + &split.v * &factors.a,
    },
    Bug {
        id: "n-gradients-without-s",
        what: "the gradients of N lack s: full and factored steps are s times too short",
        plant: |e| {
            e.of_n = |factors, n| FactorPair {
                a: factors.b.transpose() * n,
                b: n * factors.a.transpose(),
            }
        },
    },
    Bug {
        id: "second-closed-form-left-out",
        what: "full and factored step along (s B'N, s N A') without the second closed form: the \
               size of a step depends on the size of the factors",
        plant: |e| e.toward = |gradients, _| gradients,
    },
];

/// y (I - PA).
fn outside_rows(a: &Matrix, y: &Matrix) -> Matrix {
    // A has few rows and the SVD of its transpose an orthonormal basis of their span.
    let svd = a.transpose().svd(true, false);
    let largest = svd.singular_values.max();
    let mut basis = svd.u.unwrap_or_else(|| a.transpose() * 0.0);
    for (k, size) in svd.singular_values.iter().enumerate() {
        if *size <= 1e-14 * largest {
            basis.column_mut(k).fill(0.0);
        }
    }
    y - y * &basis * basis.transpose()
}
