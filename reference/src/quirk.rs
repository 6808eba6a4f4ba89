//! A quirk of the public code that changes its trajectories, to replay them.

use lora_pro_core::DType;
use nalgebra::DMatrix;

/// How the full mode squares E into its second moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondMomentQuirk {
    /// As it is.
    #[default]
    None,
    /// From the second step on, E is rounded to bf16 first.
    Bf16FromSecondStep,
}

impl SecondMomentQuirk {
    /// $`E \odot E`$ in step t, m x n.
    ///
    /// ```
    /// use lora_pro_reference::quirk::SecondMomentQuirk;
    /// use nalgebra::dmatrix;
    /// let e = dmatrix![1.001];
    /// assert_eq!(SecondMomentQuirk::None.square(&e, 2)[0], 1.001 * 1.001);
    /// assert_eq!(SecondMomentQuirk::Bf16FromSecondStep.square(&e, 2)[0], 1.0);
    /// assert_eq!(SecondMomentQuirk::Bf16FromSecondStep.square(&e, 1)[0], 1.001 * 1.001);
    /// ```
    pub fn square(self, e: &DMatrix<f64>, t: u64) -> DMatrix<f64> {
        match self {
            SecondMomentQuirk::Bf16FromSecondStep if t > 1 => {
                e.map(|x| DType::Bf16.round(x).powi(2))
            }
            _ => e.component_mul(e),
        }
    }
}
