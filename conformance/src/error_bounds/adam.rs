//! ErrorBound of Adam's moments and of N = M / (root + eps).

use lora_pro_core::Hyper;
use lora_pro_reference::adamw::{adam, bias_correction};
use lora_pro_reference::state::Moments;
use nalgebra::DMatrix;

/// Adam on a matrix, with the noise of each entry.
pub(super) struct Averaged {
    pub(super) n: DMatrix<f64>,
    pub(super) n_noise: DMatrix<f64>,
    pub(super) first_noise: DMatrix<f64>,
    /// Of the second moment, and of its maximum: a maximum moves no more than what it is of.
    pub(super) second_noise: DMatrix<f64>,
}

/// Adam on x, whose entries have the noise e.
pub(super) fn averaged(
    hyper: &Hyper,
    old: &Moments,
    x: &DMatrix<f64>,
    e: &DMatrix<f64>,
    t: u64,
    u: f64,
) -> Averaged {
    let (new, n) = adam(hyper, old, x, t);
    let (c1, c2) = (
        bias_correction(hyper.beta1, t),
        bias_correction(hyper.beta2, t),
    );
    let (fresh1, fresh2) = (1.0 - hyper.beta1, 1.0 - hyper.beta2);
    let first_noise = e * fresh1 + (new.first.abs() + old.first.abs() + x.abs() * fresh1) * u;
    let of_square = e.zip_map(x, |e, x| fresh2 * e * (2.0 * x.abs() + e));
    let used = new.largest.as_ref().unwrap_or(&new.second);
    let second_noise = of_square + used * (4.0 * u);
    let root = used.map(|v| (v / c2).sqrt() + hyper.eps);
    let steep = (fresh2 / c2).sqrt();
    let n_noise = DMatrix::from_fn(n.nrows(), n.ncols(), |i, j| {
        let at = (i, j);
        let of_first = first_noise[at] / c1;
        let of_root = n[at].abs() * steep * e[at];
        (of_first + of_root) / root[at] + 4.0 * u * n[at].abs()
    });
    Averaged {
        n,
        n_noise,
        first_noise,
        second_noise,
    }
}
