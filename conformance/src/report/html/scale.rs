//! Colours of cells: the hue is the verdict's, the strength grows with the ratio's logarithm.

use crate::record::Cell;
use crate::residual::THRESHOLD;
use crate::verdict::Verdict;

use super::super::wording;

/// Decades below the threshold over which the colour of what passes grows.
const DECADES: f64 = 4.0;

/// The class of a cell, by verdict.
pub fn class(verdict: Verdict) -> String {
    verdict.name().to_lowercase()
}

/// How strong the colour of a cell is, from 0 to 100.
pub fn strength(cell: &Cell) -> u32 {
    match wording::measured(cell) {
        true => of_ratio(cell.verdict, cell.ratio),
        false => 100,
    }
}

/// The same of a verdict with a ratio.
pub fn of_ratio(verdict: Verdict, ratio: f64) -> u32 {
    let over = (ratio / THRESHOLD).log10();
    let share = match verdict {
        Verdict::Pass => 1.0 + over / DECADES,
        Verdict::Marginal => over,
        _ => (over - 1.0) / DECADES,
    };
    // A ratio of zero is -inf here, one that is not a number as strong as can be.
    let share = if share.is_nan() { 1.0 } else { share };
    (100.0 * share.clamp(0.0, 1.0)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strength_follows_the_logarithm() {
        let strengths = |verdict, ratios: [f64; 3]| ratios.map(|ratio| of_ratio(verdict, ratio));
        assert_eq!(strengths(Verdict::Pass, [0.0, 0.3, 29.9]), [0, 50, 100]);
        assert_eq!(
            strengths(Verdict::Marginal, [30.0, 94.9, 299.0]),
            [0, 50, 100]
        );
        let fails = [300.0, f64::INFINITY, f64::NAN];
        assert_eq!(strengths(Verdict::Fail, fails), [0, 100, 100]);
    }
}
