//! Round numbers along an axis.

/// The ends of an axis and its ticks.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticks {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Where the ticks are, ascending.
    pub at: Vec<f64>,
}

/// About five steps of 1, 2 or 5 times a power of ten, with ends on ticks.
pub fn linear(low: f64, high: f64) -> Ticks {
    let (low, high) = widened(low, high);
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = nice
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(nice[3]);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    let at: Vec<f64> = (first..=last).map(|k| k as f64 * step).collect();
    Ticks {
        low: first as f64 * step,
        high: last as f64 * step,
        at,
    }
}

/// Powers of ten, and their double and fivefold where there are fewer than three decades.
pub fn logarithmic(low: f64, high: f64) -> Ticks {
    let (low, high) = (low / 1.15, high * 1.15);
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let factors: &[f64] = match (high / low).log10() < 3.0 {
        true => &[1.0, 2.0, 5.0],
        false => &[1.0],
    };
    let all = decades.flat_map(|k| factors.iter().map(move |factor| factor * 10f64.powi(k)));
    let at = all.filter(|tick| (low..=high).contains(tick)).collect();
    Ticks { low, high, at }
}

/// An axis of no length gets some.
fn widened(low: f64, high: f64) -> (f64, f64) {
    if high > low {
        return (low, high);
    }
    let margin = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
    (low - margin, high + margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_cover_the_range() {
        assert_eq!(linear(0.0, 200.0).at, [0.0, 50.0, 100.0, 150.0, 200.0]);
        let ticks = linear(0.31, 0.97);
        assert!(ticks.low <= 0.31 && ticks.high >= 0.97);
        let point = linear(3.0, 3.0);
        assert!(point.low < 3.0 && point.high > 3.0);
    }

    #[test]
    fn logarithmic_ticks_thin_out_over_many_decades() {
        assert_eq!(logarithmic(1e-3, 1e-2).at, [1e-3, 2e-3, 5e-3, 1e-2]);
        assert_eq!(logarithmic(1e-6, 1.0).at.len(), 7);
    }
}
