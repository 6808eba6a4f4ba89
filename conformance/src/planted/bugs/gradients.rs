//! Bugs in what acts on the raw gradients.

use lora_pro_core::backend::Control;
use lora_pro_reference::factors::FactorPair;

use super::Bug;
use crate::planted::Matrix;

pub(super) const BUGS: &[Bug] = &[
    Bug {
        id: "square-gradients-transposed",
        what: "gradients of square matrices are read with rows and columns swapped: nothing \
               complains, since the shapes agree",
        plant: |e| {
            e.raw = |pair, scale| FactorPair {
                a: transposed_if_square(&pair.a) * scale,
                b: transposed_if_square(&pair.b) * scale,
            }
        },
    },
    Bug {
        id: "gradient-sign-of-a",
        what: "gA has the wrong sign: A ascends",
        plant: |e| {
            e.raw = |pair, scale| FactorPair {
                a: &pair.a * -scale,
                b: &pair.b * scale,
            }
        },
    },
    Bug {
        id: "last-row-of-gb-left-out",
        what: "the last row of gB is not read, as where a tile does not divide m",
        plant: |e| {
            e.raw = |pair, scale| {
                let mut read = pair.scaled(scale);
                let last = read.b.nrows() - 1;
                read.b.row_mut(last).fill(0.0);
                read
            }
        },
    },
    Bug {
        id: "grad-scale-ignored",
        what: "the loss scale is left in the gradients: steps of methods without Adam explode",
        plant: |e| {
            e.control = |control| Control {
                grad_scale: 1.0,
                ..*control
            }
        },
    },
    Bug {
        id: "grad-scale-on-b-only",
        what: "the loss scale is taken out of gB and left in gA",
        plant: |e| {
            e.raw = |pair, scale| FactorPair {
                a: pair.a.clone(),
                b: &pair.b * scale,
            }
        },
    },
    Bug {
        id: "grad-clip-ignored",
        what: "the global norm is not clipped",
        plant: |e| {
            e.control = |control| Control {
                max_grad_norm: None,
                ..*control
            }
        },
    },
    Bug {
        id: "grad-clip-after-the-adjustment",
        what: "the global clip shortens the direction, not the gradients: moments see what should \
               have been clipped",
        plant: |e| e.gradient_clip = |clip| [1.0, clip],
    },
    Bug {
        id: "global-norm-of-squares",
        what: "the global norm lacks its root",
        plant: |e| e.global_norm = |adapters, params| adapters.iter().chain(params).sum(),
    },
    Bug {
        id: "global-norm-of-the-largest",
        what: "the norm of the largest adapter stands for the global one: each is clipped as if \
               alone",
        plant: |e| {
            e.global_norm = |adapters, params| {
                adapters
                    .iter()
                    .chain(params)
                    .fold(0.0_f64, |a, b| a.max(*b))
                    .sqrt()
            }
        },
    },
];

fn transposed_if_square(x: &Matrix) -> Matrix {
    if x.is_square() {
        x.transpose()
    } else {
        x.clone()
    }
}
