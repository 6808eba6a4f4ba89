//! What a step did, for people to see: the early steps of LoRA-Pro are large, and a library must
//! let its user notice.

use serde::{Deserialize, Serialize};

use crate::state::Factor;

/// One number for each factor of an adapter. Written as a list: A's, then B's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct PerFactor {
    /// A's.
    pub a: f64,
    /// B's.
    pub b: f64,
}

impl PerFactor {
    /// The number of one factor.
    pub fn of(self, factor: Factor) -> f64 {
        match factor {
            Factor::A => self.a,
            Factor::B => self.b,
        }
    }
}

impl From<[f64; 2]> for PerFactor {
    fn from([a, b]: [f64; 2]) -> Self {
        PerFactor { a, b }
    }
}

impl From<PerFactor> for [f64; 2] {
    fn from(values: PerFactor) -> Self {
        [values.a, values.b]
    }
}

/// What one step did to one adapter. All norms are Frobenius norms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AdapterReport {
    /// The adapter's step counter t after the step.
    pub step: u64,
    /// |gA| and |gB|, as handed in (after loss scaling, before the global clip).
    pub grad_norm: PerFactor,
    /// |lr dA| and |lr dB|: the change of each factor, weight decay not counted.
    pub update_norm: PerFactor,
    /// |lr dA| / |A| and |lr dB| / |B| with the factors before the step; infinite for a factor
    /// that was zero and moved, 0 for one that did not move.
    pub relative_update: PerFactor,
    /// ||E||: norm of the equivalent gradient of the (clipped) gradients. NaN where a backend does not
    /// compute it.
    pub equivalent_norm: f64,
    /// What the update clip multiplied the update by; 1 where it did not act.
    pub clip: f64,
}

/// Why a step changed nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SkippedStep {
    /// The adapter or parameter whose gradient was not finite.
    pub subject: String,
    /// The error's words.
    pub reason: String,
}

/// How a step was spread over threads. Results do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Parallelism {
    /// Threads that could take part.
    pub threads: usize,
    /// Adapters that were stepped by one thread each.
    pub whole: usize,
    /// Adapters that were cut into blocks for several threads.
    pub split: usize,
}

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StepReport {
    /// The factor on all learning rates.
    pub lr_factor: f64,
    /// Global norm of all gradients of the step.
    pub grad_norm: f64,
    /// What the global-norm clip multiplied all gradients by; 1 where it did not act.
    pub grad_clip: f64,
    /// Set where the whole step was skipped; nothing changed then.
    pub skipped: Option<SkippedStep>,
    /// How the work was spread, where the backend has a choice.
    pub parallelism: Option<Parallelism>,
}

impl StepReport {
    /// The report of a step that was taken.
    pub fn new(lr_factor: f64, grad_norm: f64, grad_clip: f64) -> Self {
        StepReport {
            lr_factor,
            grad_norm,
            grad_clip,
            skipped: None,
            parallelism: None,
        }
    }
}

/// `x / y`, with 0 / 0 = 0: how [`AdapterReport::relative_update`] is made.
pub fn ratio_or_zero(x: f64, y: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x / y }
}
