//! Median and quartiles.

use serde::{Deserialize, Serialize};

/// What several rounds measured.
///
/// The median stands for all: on a machine that others use too, single rounds are disturbed, and
/// the fastest round of a floor need not be from the same conditions as the fastest of the work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// The median.
    pub median: f64,
    /// First and third quartile.
    pub quartiles: [f64; 2],
    /// The smallest.
    pub min: f64,
    /// All, in the order of the rounds.
    pub all: Vec<f64>,
}

impl Samples {
    /// Of the rounds, of which there must be at least one.
    pub fn of(all: Vec<f64>) -> Self {
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        Samples {
            median: quantile(&sorted, 0.5),
            quartiles: [quantile(&sorted, 0.25), quantile(&sorted, 0.75)],
            min: quantile(&sorted, 0.0),
            all,
        }
    }

    /// Round by round, this over `other`: neighbours in time share what disturbs them.
    pub fn over(&self, other: &Samples) -> Samples {
        let pairs = self.all.iter().zip(&other.all);
        Samples::of(pairs.map(|(x, y)| x / y).collect())
    }
}

/// Linear between the two neighbours; NaN of nothing.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * sorted.len().saturating_sub(1) as f64;
    let [low, high] = [at.floor(), at.ceil()].map(|k| sorted.get(k as usize).copied());
    match (low, high) {
        (Some(low), Some(high)) => low + (high - low) * at.fract(),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between() {
        let samples = Samples::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(samples.median, 2.5);
        assert_eq!(samples.quartiles, [1.75, 3.25]);
        assert_eq!(samples.min, 1.0);
        assert_eq!(Samples::of(vec![7.0]).quartiles, [7.0, 7.0]);
        assert!(Samples::of(vec![]).median.is_nan());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let [work, floor] = [vec![2.0, 20.0, 6.0], vec![1.0, 10.0, 2.0]].map(Samples::of);
        assert_eq!(work.over(&floor).all, [2.0, 2.0, 3.0]);
        assert_eq!(work.over(&floor).median, 2.0);
    }
}
