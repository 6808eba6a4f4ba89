//! Gradient descent along the adjusted gradients.

use crate::factors::Pair;

/// The direction of SGD with momentum $`\mu`$: $`D \leftarrow \mu D + (\mathrm{d}A, \mathrm{d}B)`$.
/// The returned pair is both the direction and the new momentum.
///
/// ```
/// use lora_pro_reference::{factors::Pair, sgd::with_momentum};
/// use nalgebra::dmatrix;
/// let old = Pair { a: dmatrix![2.0], b: dmatrix![4.0] };
/// let new = Pair { a: dmatrix![1.0], b: dmatrix![1.0] };
/// assert_eq!(with_momentum(0.5, &old, &new), Pair { a: dmatrix![2.0], b: dmatrix![3.0] });
/// ```
pub fn with_momentum(mu: f64, old: &Pair, adjusted: &Pair) -> Pair {
    Pair {
        a: &old.a * mu + &adjusted.a,
        b: &old.b * mu + &adjusted.b,
    }
}
