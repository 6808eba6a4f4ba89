//! What can be said of one subject and one check. The worst of several is the verdict on all.

use serde::{Deserialize, Serialize};

use crate::residual::THRESHOLD;

/// From best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Every ratio is below the threshold.
    Pass,
    /// The cell was left out on purpose, with a reason.
    Skipped,
    /// The subject says that it does not do this.
    Unsupported,
    /// A ratio is past the threshold, and below ten times that.
    Marginal,
    /// A ratio is past ten times the threshold, or is not a number.
    Fail,
    /// The subject gave up: an error where none is due, a crash, a time-out.
    Error,
    /// The checker itself failed; nothing is known of the subject.
    Unknown,
}

impl Verdict {
    /// All of them, from best to worst.
    pub const ALL: [Verdict; 7] = [
        Verdict::Pass,
        Verdict::Skipped,
        Verdict::Unsupported,
        Verdict::Marginal,
        Verdict::Fail,
        Verdict::Error,
        Verdict::Unknown,
    ];

    /// The verdict on a ratio. Written so that NaN fails.
    ///
    /// ```
    /// use lora_pro_conformance::verdict::Verdict;
    /// assert_eq!(Verdict::of(29.0), Verdict::Pass);
    /// assert_eq!(Verdict::of(30.0), Verdict::Marginal);
    /// assert_eq!(Verdict::of(f64::NAN), Verdict::Fail);
    /// ```
    pub fn of(ratio: f64) -> Self {
        if ratio < THRESHOLD {
            Verdict::Pass
        } else if ratio < 10.0 * THRESHOLD {
            Verdict::Marginal
        } else {
            Verdict::Fail
        }
    }

    /// Whether this is no reason to worry. Where a check is required, it must be so.
    pub fn is_fine(self) -> bool {
        self <= Verdict::Unsupported
    }

    /// Its name, as reports print it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "PASS",
            Verdict::Skipped => "SKIPPED",
            Verdict::Unsupported => "UNSUPPORTED",
            Verdict::Marginal => "MARGINAL",
            Verdict::Fail => "FAIL",
            Verdict::Error => "ERROR",
            Verdict::Unknown => "UNKNOWN",
        }
    }
}
