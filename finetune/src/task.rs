//! What a network is pre-trained on and what it is fine-tuned for: parts of the data, and the
//! shift between them.

use lora_pro_core::{Backend, Error};

use crate::{
    Dataset, Experiment, Network,
    pretrain::pretrain,
    run::{permutation, random},
};

/// What fine-tuning sees that pre-training did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// Nothing: more rows of the same kind.
    None,
    /// Square images turned by 90 degrees, counter-clockwise.
    Rotate,
    /// Columns in another order, fixed by this seed.
    Permute(u64),
}

/// The frozen network and the data to fine-tune it on.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The pre-trained network.
    pub base: Network,
    /// Rows to train on.
    pub train: Dataset,
    /// Rows that choose learning rates.
    pub validation: Dataset,
    /// Rows that nothing is chosen by.
    pub test: Dataset,
}

/// Fixes which rows go where.
const SPLIT_SEED: u64 = 0;

impl Problem {
    /// Splits the data and pre-trains the network; the same inputs give the same bits.
    pub fn prepare(
        experiment: &Experiment,
        data: &Dataset,
        backend: Box<dyn Backend>,
    ) -> Result<Self, Error> {
        let [known, train, validation, test] = Self::split(experiment, data)?;
        Ok(Problem {
            base: pretrain(experiment, &known, backend)?,
            train,
            validation,
            test,
        })
    }

    /// The rows to pre-train on, and shifted, those to train on, to validate and to test.
    pub fn split(experiment: &Experiment, data: &Dataset) -> Result<[Dataset; 4], Error> {
        let [known, train, validation, test] = split(experiment.parts, data)?;
        let shifted = |part: &Dataset| experiment.shift.apply(part);
        Ok([
            known,
            shifted(&train)?,
            shifted(&validation)?,
            shifted(&test)?,
        ])
    }
}

/// Cuts shuffled rows into the parts for pre-training, training, validation and testing.
fn split(parts: [f64; 3], data: &Dataset) -> Result<[Dataset; 4], Error> {
    let order = permutation(&mut random(SPLIT_SEED, 0), data.len());
    let mut cut = [0; 5];
    let mut sum = 0.0;
    for (k, part) in parts.iter().enumerate() {
        sum += part;
        cut[k + 1] = (sum * data.len() as f64).round() as usize;
    }
    cut[4] = data.len();
    if !cut.is_sorted_by(|a, b| a < b) {
        let expected = "such that every part has a row";
        return Err(Error::invalid(&data.name, "rows", data.len(), expected));
    }
    let part = |k: usize| data.rows(&order[cut[k]..cut[k + 1]]);
    Ok([part(0)?, part(1)?, part(2)?, part(3)?])
}

impl Shift {
    /// The shifted data. [`Shift::Rotate`] refuses rows that are not square images.
    pub fn apply(self, data: &Dataset) -> Result<Dataset, Error> {
        match self {
            Shift::None => Ok(data.clone()),
            Shift::Rotate => data.columns(&quarter_turn(data)?),
            Shift::Permute(seed) => data.columns(&permutation(&mut random(seed, 0), data.inputs())),
        }
    }

    /// In a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Shift::None => "unchanged",
            Shift::Rotate => "turned by 90 degrees",
            Shift::Permute(_) => "with their columns permuted",
        }
    }
}

/// Pixel (i, j) of the turned image is pixel (j, side - 1 - i) of the old one.
fn quarter_turn(data: &Dataset) -> Result<Vec<u32>, Error> {
    let side = data.inputs().isqrt();
    if side * side != data.inputs() {
        return Err(Error::invalid(
            &data.name,
            "features",
            data.inputs(),
            "a square number",
        ));
    }
    let old = |i: usize, j: usize| (j * side + side - 1 - i) as u32;
    Ok((0..side)
        .flat_map(|i| (0..side).map(move |j| old(i, j)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_hold_every_row_once() {
        let digits = Dataset::digits().unwrap();
        let parts = split([0.4, 0.28, 0.14], &digits).unwrap();
        let sizes = parts.each_ref().map(Dataset::len);
        assert_eq!(sizes, [719, 503, 252, 323]);
        let sum = |data: &Dataset| data.labels.to_vec1::<u32>().unwrap().iter().sum::<u32>();
        assert_eq!(parts.iter().map(sum).sum::<u32>(), sum(&digits));
    }

    #[test]
    fn too_few_rows_are_refused() {
        let few = Dataset::digits().unwrap().rows(&[0, 1, 2]).unwrap();
        let error = split([0.4, 0.28, 0.14], &few).unwrap_err().to_string();
        assert!(error.contains("rows is 3, but it must be such that every part has a row"));
    }

    #[test]
    fn four_quarter_turns_are_none() {
        let digits = Dataset::digits().unwrap().rows(&[5]).unwrap();
        let first = Shift::Rotate.apply(&digits).unwrap();
        let pixels = |data: &Dataset| data.features.to_vec2::<f32>().unwrap();
        // The upper right corner goes to the upper left.
        assert_eq!(pixels(&first)[0][0], pixels(&digits)[0][7]);
        let turned = (0..3).fold(first, |data, _| Shift::Rotate.apply(&data).unwrap());
        assert_eq!(pixels(&turned), pixels(&digits));
    }
}
