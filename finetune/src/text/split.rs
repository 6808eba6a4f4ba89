//! Parts to train on, to validate and to test.

use lora_pro_core::Error;

use crate::run::{permutation, random};

/// The stream of the split's random numbers; those of the order of the data count up from 0.
const SPLIT: u64 = u64::MAX;

/// Indices of examples: each of 0 to `count` - 1 is in one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// To train on.
    pub train: Vec<usize>,
    /// To choose a learning rate by, or the step at which to stop.
    pub validation: Vec<usize>,
    /// For the final figure.
    pub test: Vec<usize>,
}

impl Split {
    /// A random split: a pure function of `count`, `seed` and the shares of the two smaller parts. A
    /// share above 0 gives at least one example, and a test set is the same whatever the share of
    /// validation is.
    ///
    /// Rejects shares outside of [0, 1), and a training part without any example.
    pub fn new(count: usize, seed: u64, validation: f64, test: f64) -> Result<Self, Error> {
        let size = |field, share: f64| match (0.0..1.0).contains(&share) {
            true if share > 0.0 => Ok(((share * count as f64) as usize).max(1)),
            true => Ok(0),
            false => Err(Error::invalid(
                "the split",
                field,
                share,
                "from 0 to less than 1",
            )),
        };
        let test = size("test", test)?;
        let validation = size("validation", validation)?;
        let held_out = test.saturating_add(validation);
        if held_out >= count || u32::try_from(count).is_err() {
            let expected = format!("more than the {held_out} that are held out, and below 2^32");
            return Err(Error::invalid("the split", "count", count, expected));
        }
        let order = permutation(&mut random(seed, SPLIT), count);
        let mut order = order.into_iter().map(|index| index as usize);
        Ok(Split {
            test: order.by_ref().take(test).collect(),
            validation: order.by_ref().take(validation).collect(),
            train: order.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_in_one_part() {
        let split = Split::new(1003, 7, 0.1, 0.2).unwrap();
        assert_eq!(split.test.len(), 200);
        assert_eq!(split.validation.len(), 100);
        let mut all = [split.train, split.validation, split.test].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1003).collect::<Vec<_>>());
    }

    #[test]
    fn a_split_is_a_function_of_count_and_seed() {
        let split = |seed| Split::new(10, seed, 0.1, 0.3).unwrap();
        assert_eq!(split(0), split(0));
        assert_ne!(split(0), split(1));
        // The very split: files and results that name a seed rely on it.
        assert_eq!(split(0).test, [8, 6, 3]);
        // Another share of validation leaves the test set as it is.
        assert_eq!(Split::new(10, 0, 0.5, 0.3).unwrap().test, split(0).test);
    }

    #[test]
    fn small_shares_give_one_example_and_large_ones_are_refused() {
        let split = Split::new(3, 0, 0.01, 0.01).unwrap();
        assert_eq!(
            (split.train.len(), split.validation.len(), split.test.len()),
            (1, 1, 1)
        );
        assert_eq!(Split::new(3, 0, 0.0, 0.0).unwrap().train.len(), 3);
        for (count, validation, test) in [(2, 0.1, 0.1), (0, 0.0, 0.0), (10, 0.5, 0.5)] {
            let error = Split::new(count, 0, validation, test)
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("the split: count is {count}")),
                "{error}"
            );
        }
        for share in [1.0, -0.1, f64::NAN] {
            let error = Split::new(10, 0, share, 0.1).unwrap_err().to_string();
            assert!(error.contains(&format!("validation is {share}")), "{error}");
        }
    }
}
