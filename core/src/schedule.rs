//! Learning-rate schedules: a factor in [0, 1] on every group's rate.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The factor on the learning rate as a function of the step t = 1, 2, ...
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// Always 1.
    #[default]
    Constant,
    /// Up linearly over `warmup` steps, down linearly to 0 after `total`.
    Linear {
        /// Steps to rise; step t of them has factor t / warmup.
        warmup: u64,
        /// The step at which the factor reaches 0.
        total: u64,
    },
    /// Up linearly over `warmup` steps, down along half a cosine to 0 after `total`.
    Cosine {
        /// Steps to rise; step t of them has factor t / warmup.
        warmup: u64,
        /// The step at which the factor reaches 0.
        total: u64,
    },
}

impl Schedule {
    /// The factor at step `t`, counted from 1.
    ///
    /// ```
    /// use lora_pro_core::Schedule;
    /// let schedule = Schedule::Linear { warmup: 2, total: 10 };
    /// assert_eq!(schedule.factor(1), 0.5);
    /// assert_eq!(schedule.factor(2), 1.0);
    /// assert_eq!(schedule.factor(6), 0.5);
    /// assert_eq!(schedule.factor(11), 0.0);
    /// ```
    pub fn factor(self, t: u64) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Linear { warmup, total } => warmup_decay(t, warmup, total, |done| 1.0 - done),
            Schedule::Cosine { warmup, total } => warmup_decay(t, warmup, total, |done| {
                0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }),
        }
    }

    /// Rejects a schedule that ends before its warm-up does.
    pub fn validate(self) -> Result<(), Error> {
        match self {
            Schedule::Constant => Ok(()),
            Schedule::Linear { warmup, total } | Schedule::Cosine { warmup, total } => {
                if total > warmup {
                    return Ok(());
                }
                let expected = format!("more than warmup = {warmup}");
                Err(Error::invalid("the schedule", "total", total, expected))
            }
        }
    }
}

fn warmup_decay(t: u64, warmup: u64, total: u64, fall: impl Fn(f64) -> f64) -> f64 {
    if t < warmup {
        return t as f64 / warmup as f64;
    }
    let done = (t - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64;
    fall(done.min(1.0))
}
