//! How far a step is from full fine-tuning's.

use nalgebra::DMatrix;

/// The gap of an equivalent gradient E to the full gradient g, both m x n:
/// ```math
/// \frac{\lVert g - E \rVert_F}{\lVert g \rVert_F}
/// ```
/// 0 where g = 0. For LoRA-Pro's E, a projection, it is $`\sqrt{1 - \lVert E\rVert^2/\lVert g\rVert^2}`$.
///
/// ```
/// use lora_pro_reference::gap::gap;
/// use nalgebra::dmatrix;
/// assert_eq!(gap(&dmatrix![3.0, 4.0], &dmatrix![3.0, 0.0]), 0.8);
/// ```
pub fn gap(g: &DMatrix<f64>, e: &DMatrix<f64>) -> f64 {
    lora_pro_core::backend::ratio_or_zero((g - e).norm(), g.norm())
}

/// The gap after the best rescaling of E, since a wrong length can be mended by the learning rate
/// and a wrong direction cannot:
/// ```math
/// \min_c \frac{\lVert g - c E \rVert_F}{\lVert g \rVert_F} , \qquad
/// c = \frac{\langle g, E \rangle}{\lVert E \rVert_F^2}
/// ```
///
/// ```
/// use lora_pro_reference::gap::gap_after_best_scale;
/// use nalgebra::dmatrix;
/// assert_eq!(gap_after_best_scale(&dmatrix![3.0, 4.0], &dmatrix![50.0, 0.0]), 0.8);
/// ```
pub fn gap_after_best_scale(g: &DMatrix<f64>, e: &DMatrix<f64>) -> f64 {
    let c = lora_pro_core::backend::ratio_or_zero(g.dot(e), e.norm_squared());
    gap(g, &(e * c))
}
