//! From a direction to new factors. Every algorithm ends here.

use lora_pro_core::Hyper;

use crate::clip::update_clip;
use crate::decay::decay;
use crate::factors::{FactorPair, Factors};
use crate::quirk::SecondMomentQuirk;
use crate::state::OptimizerState;

/// What a step takes besides the adapter, its gradients and its state.
#[derive(Clone, Copy, Debug)]
pub struct StepParams<'a> {
    /// The hyper-parameters.
    pub hyper: &'a Hyper,
    /// The learning rate of this step, schedule included.
    pub lr: f64,
    /// The step counter t = 1, 2, ... of this step.
    pub t: u64,
    /// How the full mode squares E.
    pub quirk: SecondMomentQuirk,
}

/// What a step makes of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutcome {
    /// The new factors and how they came about.
    pub update: Update,
    /// The new state.
    pub state: OptimizerState,
    /// $`\lVert E \rVert`$ of the gradients.
    pub equivalent_norm: f64,
}

/// New factors, and what led to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The factors after the step.
    pub factors: Factors,
    /// What was subtracted from the decayed factors, learning rate and clip included.
    pub change: FactorPair,
    /// The factor of the update clip, 1 where it did not act.
    pub clip: f64,
    /// What W0 is to be multiplied by.
    pub w0_decay: f64,
}

impl Update {
    /// The factors after a step along (DA, DB), a direction of their shapes:
    /// ```text
    /// UA = lr DA,  UB = lr lr_ratio DB
    /// if update_clip is set: scale UA and UB by a common factor
    /// A = decay_A A - UA,  B = decay_B B - UB
    /// ```
    ///
    /// ```
    /// use lora_pro_core::{Method, Preset};
    /// use lora_pro_reference::factors::{FactorPair, Factors};
    /// use lora_pro_reference::update::{StepParams, Update};
    /// use nalgebra::dmatrix;
    /// let hyper = Preset::Paper.hyper().method(Method::Lora).lr_ratio(4.0).weight_decay(1.0);
    /// let params = StepParams { hyper: &hyper, lr: 0.125, t: 1, quirk: Default::default() };
    /// let factors = Factors { b: dmatrix![2.0], a: dmatrix![8.0], s: 1.0 };
    /// let direction = FactorPair { a: dmatrix![8.0], b: dmatrix![2.0] };
    /// let update = Update::along(&params, &factors, &direction);
    /// assert_eq!(update.change, FactorPair { a: dmatrix![1.0], b: dmatrix![1.0] });
    /// assert_eq!(update.factors, Factors { b: dmatrix![0.0], a: dmatrix![6.0], s: 1.0 });
    /// ```
    pub fn along(params: &StepParams<'_>, factors: &Factors, direction: &FactorPair) -> Update {
        let StepParams { hyper, lr, .. } = *params;
        // UA = lr DA, UB = lr lr_ratio DB
        let change = FactorPair {
            a: &direction.a * lr,
            b: &direction.b * (lr * hyper.lr_ratio),
        };
        // Both times a common factor, so that the larger factor stays in its trust region
        let clip = update_clip(hyper.update_clip, factors, &change);
        let change = change.scaled(clip);
        // A = decay_A A - UA, B = decay_B B - UB
        let decay = decay(hyper, lr);
        let factors = Factors {
            a: &factors.a * decay.a - &change.a,
            b: &factors.b * decay.b - &change.b,
            s: factors.s,
        };
        Update {
            factors,
            change,
            clip,
            w0_decay: decay.w0,
        }
    }
}
