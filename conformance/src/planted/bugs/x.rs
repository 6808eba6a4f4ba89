//! Bugs in X. E does not see them: X cancels there.

use lora_pro_core::{Damping, Error, XChoice};
use lora_pro_reference::closed_form::Split;
use lora_pro_reference::damping::Grams;
use lora_pro_reference::eigen::symmetric_eigen;
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::x::{choose, sylvester, symmetric};
use nalgebra::DMatrix;

use super::Bug;
use crate::planted::Matrix;

pub(super) const BUGS: &[Bug] = &[
    Bug {
        id: "x-sign",
        what: "X has the wrong sign: the factors grow apart in place of staying balanced",
        plant: |e| {
            e.x = |choice, factors, grams, gradients, split| {
                Ok(-choose(choice, factors, grams, gradients, split)?)
            }
        },
    },
    Bug {
        id: "x-added-to-both",
        what: "dB = V + B X: E depends on X, and the step is no descent on W",
        plant: |e| {
            e.adjusted = |factors, split, x| FactorPair {
                a: &split.u + x * &factors.a,
                b: &split.v + &factors.b * x,
            }
        },
    },
    Bug {
        id: "x-transposed",
        what: "X' in place of X: right at r = 1 only",
        plant: |e| {
            e.x = |choice, factors, grams, gradients, split| {
                Ok(choose(choice, factors, grams, gradients, split)?.transpose())
            }
        },
    },
    Bug {
        id: "x-left-out-of-a",
        what: "dA = U without X A: what B gives up is lost, and E shrinks",
        plant: |e| {
            e.adjusted = |factors, split, x| FactorPair {
                a: split.u.clone(),
                b: &split.v - &factors.b * x,
            }
        },
    },
    Bug {
        id: "zero-for-sylvester",
        what: "X = 0 where the Sylvester X is asked for: after a hundred steps |A| is hundreds of \
               times larger",
        plant: |e| {
            e.x = |choice, factors, grams, gradients, split| {
                let choice = match choice {
                    XChoice::Sylvester => XChoice::Zero,
                    other => other,
                };
                choose(choice, factors, grams, gradients, split)
            }
        },
    },
    Bug {
        id: "sylvester-sides-swapped",
        what: "SA X + X SB = -U A' is solved: the factors are not balanced",
        plant: |e| {
            e.x = |choice, factors, grams, gradients, split| match choice {
                XChoice::Sylvester => sylvester(&grams.sa, &grams.sb, &right_side(factors, split)),
                _ => choose(choice, factors, grams, gradients, split),
            }
        },
    },
    Bug {
        id: "sylvester-right-side-sign",
        what: "SB X + X SA = +U A' is solved",
        plant: |e| {
            e.x = |choice, factors, grams, gradients, split| match choice {
                XChoice::Sylvester => sylvester(&grams.sb, &grams.sa, &-right_side(factors, split)),
                _ => choose(choice, factors, grams, gradients, split),
            }
        },
    },
    Bug {
        id: "sylvester-denominator-swapped",
        what: "entry (i, j) is divided by a_i + b_j: the eigenvalues belong to the wrong sides",
        plant: |e| {
            e.x = |choice, factors, grams, gradients, split| match choice {
                XChoice::Sylvester => denominator_swapped(factors, grams, split),
                _ => choose(choice, factors, grams, gradients, split),
            }
        },
    },
    Bug {
        id: "sylvester-damped",
        what: "the damping of the inverses is also added to the Sylvester equation: X is not the \
               balanced one once B is as small as it is in early steps",
        plant: |e| {
            e.grams = |factors, damping| {
                let mut grams = Grams::of(factors, damping)?;
                if let Damping::Absolute(d) = damping {
                    let r = grams.sb.nrows();
                    grams.sb += DMatrix::identity(r, r) * d;
                    grams.sa += DMatrix::identity(r, r) * d;
                }
                Ok(grams)
            }
        },
    },
    Bug {
        id: "symmetric-with-gram",
        what: "the symmetric X multiplies by SA where SA^+ is meant, as the public code does: \
               right where A has orthonormal rows only",
        plant: |e| {
            e.x = |choice, factors, grams, gradients, split| match choice {
                XChoice::Symmetric => Ok(with_gram(factors, grams, gradients)),
                _ => choose(choice, factors, grams, gradients, split),
            }
        },
    },
    Bug {
        id: "symmetric-without-half",
        what: "the symmetric X lacks its 1/2: the shared part of g goes to B alone",
        plant: |e| {
            e.x = |choice, factors, grams, gradients, split| match choice {
                XChoice::Symmetric => Ok(symmetric(factors, grams, &gradients.b) * 2.0),
                _ => choose(choice, factors, grams, gradients, split),
            }
        },
    },
    Bug {
        id: "sylvester-for-symmetric",
        what: "the choice of X is not read: it is always the Sylvester one",
        plant: |e| {
            e.x = |_, factors, grams, gradients, split| {
                choose(XChoice::Sylvester, factors, grams, gradients, split)
            }
        },
    },
];

fn right_side(factors: &Factors, split: &Split) -> Matrix {
    -&split.u * factors.a.transpose()
}

fn denominator_swapped(factors: &Factors, grams: &Grams, split: &Split) -> Result<Matrix, Error> {
    let (eb, ea) = (symmetric_eigen(&grams.sb)?, symmetric_eigen(&grams.sa)?);
    let rotated = eb.vectors.transpose() * right_side(factors, split) * &ea.vectors;
    let divided = DMatrix::from_fn(rotated.nrows(), rotated.ncols(), |i, j| {
        let sum = ea.values[i] + eb.values[j];
        if sum > 0.0 {
            rotated[(i, j)] / sum
        } else {
            0.0
        }
    });
    Ok(&eb.vectors * divided * ea.vectors.transpose())
}

fn with_gram(factors: &Factors, grams: &Grams, gradients: &FactorPair) -> Matrix {
    let inner = factors.b.transpose() * &gradients.b * &grams.sa;
    grams.sb_inverse.apply(&inner) * (-0.5 / (factors.s * factors.s))
}
