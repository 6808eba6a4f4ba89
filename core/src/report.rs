//! What a step did, for people to see: the early steps of LoRA-Pro are large, and a library must
//! let its user notice.

use serde::Serialize;

/// What one step did to one adapter. All norms are Frobenius norms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct AdapterReport {
    /// The adapter's step counter t after the step.
    pub step: u64,
    /// |gA| and |gB|, as handed in (after loss scaling, before the global clip).
    pub grad_norm: [f64; 2],
    /// |lr dA| and |lr dB|: the change of each factor, weight decay not counted.
    pub update_norm: [f64; 2],
    /// |lr dA| / |A| and |lr dB| / |B| with the factors before the step; infinite for a factor
    /// that was zero and moved, 0 for one that did not move.
    pub relative_update: [f64; 2],
    /// ||E||: norm of the equivalent gradient of the (clipped) gradients.
    pub equivalent_norm: f64,
    /// What the update clip multiplied the update by; 1 where it did not act.
    pub clip: f64,
}

/// Why a step changed nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Skip {
    /// The adapter or parameter whose gradient was not finite.
    pub subject: String,
    /// The error's words.
    pub reason: String,
}

/// How a step was spread over threads. Results do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Threads that could take part.
    pub threads: usize,
    /// Adapters that were stepped by one thread each.
    pub whole: usize,
    /// Adapters that were cut into blocks for several threads.
    pub split: usize,
}

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StepReport {
    /// The schedule's factor on all learning rates.
    pub lr_factor: f64,
    /// Global norm of all gradients of the step.
    pub grad_norm: f64,
    /// What the global-norm clip multiplied all gradients by; 1 where it did not act.
    pub grad_clip: f64,
    /// Set where the whole step was skipped; nothing changed then.
    pub skipped: Option<Skip>,
    /// How the work was spread, where the backend has a choice.
    pub plan: Option<Plan>,
}

/// |update| / |factor|, with 0 / 0 = 0.
pub fn relative(update: f64, factor: f64) -> f64 {
    if update == 0.0 { 0.0 } else { update / factor }
}
