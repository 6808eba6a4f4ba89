//! Is a goal reached?

use serde::{Deserialize, Serialize};

use crate::stats::Samples;

/// What the rounds say about a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoalVerdict {
    /// At least three quarters of the rounds reach it.
    Met,
    /// At least three quarters of the rounds do not.
    Missed,
    /// The rounds differ by more than their distance to the goal.
    CannotTell,
    /// The run was too small to judge by.
    NotJudged,
}

impl GoalVerdict {
    /// Of the ratios to a floor that should be `times` at most.
    pub fn of(ratios: &Samples, times: f64) -> Self {
        let [low, high] = ratios.quartiles;
        if high <= times {
            GoalVerdict::Met
        } else if low > times {
            GoalVerdict::Missed
        } else {
            GoalVerdict::CannotTell
        }
    }
}

impl std::fmt::Display for GoalVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            GoalVerdict::Met => "met",
            GoalVerdict::Missed => "missed",
            GoalVerdict::CannotTell => "cannot tell",
            GoalVerdict::NotJudged => "not judged",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_half_decides() {
        let verdict = |ratios: &[f64]| GoalVerdict::of(&Samples::of(ratios.to_vec()), 2.0);
        assert_eq!(verdict(&[1.0, 1.5, 1.9, 2.0, 9.0]), GoalVerdict::Met);
        assert_eq!(verdict(&[1.0, 2.1, 2.2, 2.3, 9.0]), GoalVerdict::Missed);
        assert_eq!(verdict(&[1.0, 1.5, 1.9, 2.1, 9.0]), GoalVerdict::CannotTell);
        assert_eq!(verdict(&[f64::NAN]), GoalVerdict::CannotTell);
    }
}
