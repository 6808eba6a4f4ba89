//! Bugs in the Gram matrices and their inverses: precision and damping.

use lora_pro_core::{DType, Damping, Error};
use lora_pro_reference::damping::{Grams, InverseRoot, damped_inverse};
use lora_pro_reference::eigen::symmetric_eigen;
use lora_pro_reference::factors::Factors;
use nalgebra::{DMatrix, SymmetricEigen};

use super::Bug;
use crate::planted::Matrix;

pub(super) const BUGS: &[Bug] = &[
    Bug {
        id: "grams-in-f32",
        what: "Gram matrices are summed in f32: half of the digits that they could have are lost",
        plant: |e| {
            e.grams =
                |factors, damping| of_gram(factors, damping, |f| (f * f.transpose()).map(f64::from))
        },
    },
    Bug {
        id: "factors-rounded-for-grams",
        what: "A and B go through bf16 on their way to the Gram matrices, as under autocast",
        plant: |e| {
            e.grams = |factors, damping| {
                let round = |x: f64| DType::Bf16.round(x);
                let rounded = Factors {
                    b: factors.b.map(round),
                    a: factors.a.map(round),
                    s: factors.s,
                };
                Grams::of(&rounded, damping)
            }
        },
    },
    Bug {
        id: "eigen-in-f32",
        what: "the eigen-decomposition of the Gram matrices runs in f32: its small eigenvalues \
               are noise",
        plant: |e| {
            e.grams = |factors, damping| {
                let mut grams = Grams::of(factors, damping)?;
                grams.sb_inverse = inverse_in_f32(&grams.sb);
                grams.sa_inverse = inverse_in_f32(&grams.sa);
                Ok(grams)
            }
        },
    },
    Bug {
        id: "grams-diagonal",
        what: "only the diagonals of the Gram matrices are inverted: each rank-one part of B A is \
               adjusted as if alone, and the parts that overlap are counted twice",
        plant: |e| {
            e.grams = |factors, damping| {
                let mut grams = Grams::of(factors, damping)?;
                grams.sb_inverse = diagonal_inverse(&grams.sb);
                grams.sa_inverse = diagonal_inverse(&grams.sa);
                Ok(grams)
            }
        },
    },
    Bug {
        id: "damping-never-off",
        what: "1e-8 is added to the Gram matrices where no damping is asked for: with B as small \
               as after a first step at a learning rate of 2e-5, dA is far too short",
        plant: |e| {
            e.grams = |factors, damping| {
                let damping = match damping {
                    Damping::None => Damping::Absolute(1e-8),
                    other => other,
                };
                Grams::of(factors, damping)
            }
        },
    },
    Bug {
        id: "damping-ignored",
        what: "no damping where some is asked for: the second step is as wild as without",
        plant: |e| e.grams = |factors, _| Grams::of(factors, Damping::None),
    },
    Bug {
        id: "damping-in-sb-only",
        what: "SB is damped and SA is not",
        plant: |e| {
            e.grams = |factors, damping| {
                Ok(Grams {
                    sa_inverse: Grams::of(factors, Damping::None)?.sa_inverse,
                    ..Grams::of(factors, damping)?
                })
            }
        },
    },
    Bug {
        id: "damping-squared",
        what: "d^2 is added in place of d: in truth there is no damping",
        plant: |e| {
            e.grams = |factors, damping| {
                let damping = match damping {
                    Damping::Absolute(d) => Damping::Absolute(d * d),
                    other => other,
                };
                Grams::of(factors, damping)
            }
        },
    },
    Bug {
        id: "relative-damping-absolute",
        what: "relative damping is added as it is, not times the largest eigenvalue: it grows \
               without bound against a small B",
        plant: |e| {
            e.grams = |factors, damping| {
                let damping = match damping {
                    Damping::Relative(c) => Damping::Absolute(c),
                    other => other,
                };
                Grams::of(factors, damping)
            }
        },
    },
    Bug {
        id: "cutoff-shifts",
        what: "a cut-off shifts all eigenvalues in place of cutting the small ones",
        plant: |e| {
            e.grams = |factors, damping| {
                let damping = match damping {
                    Damping::Cutoff(c) => Damping::Relative(c),
                    other => other,
                };
                Grams::of(factors, damping)
            }
        },
    },
    Bug {
        id: "pseudo-inverse-without-cut",
        what: "eigenvalues that are rounding only are inverted, too: factors of short rank give \
               steps of any size",
        plant: |e| {
            e.grams = |factors, damping| {
                let mut grams = Grams::of(factors, damping)?;
                if damping == Damping::None {
                    grams.sb_inverse = damped_inverse(&grams.sb, Damping::Cutoff(1e-300), 1)?;
                    grams.sa_inverse = damped_inverse(&grams.sa, Damping::Cutoff(1e-300), 1)?;
                }
                Ok(grams)
            }
        },
    },
    Bug {
        id: "cut-too-early",
        what: "eigenvalues below 1e-8 of the largest are cut off where only rounding should be, \
               as an f32 default in f64: directions of small singular value are never trained",
        plant: |e| {
            e.grams = |factors, damping| {
                let damping = match damping {
                    Damping::None => Damping::Cutoff(1e-8),
                    other => other,
                };
                Grams::of(factors, damping)
            }
        },
    },
    Bug {
        id: "eigenvalues-clamped",
        what: "1 / max(eigenvalue, 1e-12) stands for the pseudo-inverse: at B = 0 it changes \
               nothing, since gA is 0 too, but a B that is small or of short rank feels it",
        plant: |e| {
            e.grams = |factors, damping| {
                let mut grams = Grams::of(factors, damping)?;
                if damping == Damping::None {
                    grams.sb_inverse = clamped_inverse(&grams.sb)?;
                    grams.sa_inverse = clamped_inverse(&grams.sa)?;
                }
                Ok(grams)
            }
        },
    },
];

/// Gram matrices of B' and A by another product.
fn of_gram(
    factors: &Factors,
    damping: Damping,
    gram: fn(&DMatrix<f32>) -> Matrix,
) -> Result<Grams, Error> {
    let sb = gram(&factors.b.transpose().map(|x| x as f32));
    let sa = gram(&factors.a.map(|x| x as f32));
    Ok(Grams {
        sb_inverse: damped_inverse(&sb, damping, factors.b.nrows())?,
        sa_inverse: damped_inverse(&sa, damping, factors.a.ncols())?,
        sb,
        sa,
    })
}

/// The inverse with eigenvalues raised to a floor.
fn clamped_inverse(s: &Matrix) -> Result<InverseRoot, Error> {
    let eigen = symmetric_eigen(s)?;
    let inverted = eigen.values.map(|l| 1.0 / l.max(1e-12));
    let root = eigen.vectors * DMatrix::from_diagonal(&inverted.map(f64::sqrt));
    Ok(InverseRoot { root })
}

/// The inverse of the diagonal alone, 0 where that is 0.
fn diagonal_inverse(s: &Matrix) -> InverseRoot {
    let root = s
        .diagonal()
        .map(|x| if x > 0.0 { 1.0 / x.sqrt() } else { 0.0 });
    InverseRoot {
        root: DMatrix::from_diagonal(&root),
    }
}

/// The pseudo-inverse by way of an f32 eigen-decomposition.
fn inverse_in_f32(s: &Matrix) -> InverseRoot {
    let eigen = SymmetricEigen::new(s.map(|x| x as f32));
    let least = eigen.eigenvalues.max() * f32::EPSILON * s.nrows() as f32;
    let inverted = eigen
        .eigenvalues
        .map(|l| if l <= least { 0.0 } else { 1.0 / l });
    let root = eigen.eigenvectors * DMatrix::from_diagonal(&inverted.map(f32::sqrt));
    InverseRoot {
        root: root.map(f64::from),
    }
}
