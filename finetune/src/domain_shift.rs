//! How the data of fine-tuning differ from those of pre-training.

use lora_pro_core::Error;

use crate::data::Dataset;
use crate::run::{permutation, random};

/// What fine-tuning sees that pre-training did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainShift {
    /// Nothing: more rows of the same kind.
    None,
    /// Square images turned by 90 degrees, counter-clockwise.
    Rotate,
    /// Columns in another order, fixed by this seed.
    Permute(u64),
}

impl DomainShift {
    /// The shifted data. [`DomainShift::Rotate`] refuses rows that are not square images.
    pub fn apply(self, data: &Dataset) -> Result<Dataset, Error> {
        match self {
            DomainShift::None => Ok(data.clone()),
            DomainShift::Rotate => data.columns(&quarter_turn(data)?),
            DomainShift::Permute(seed) => {
                data.columns(&permutation(&mut random(seed, 0), data.inputs()))
            }
        }
    }

    /// In a few words.
    pub fn describe(self) -> &'static str {
        match self {
            DomainShift::None => "unchanged",
            DomainShift::Rotate => "turned by 90 degrees",
            DomainShift::Permute(_) => "with their columns permuted",
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
    fn four_quarter_turns_are_none() {
        let digits = Dataset::digits().unwrap().rows(&[5]).unwrap();
        let first = DomainShift::Rotate.apply(&digits).unwrap();
        let pixels = |data: &Dataset| data.features.to_vec2::<f32>().unwrap();
        // The upper right corner goes to the upper left.
        assert_eq!(pixels(&first)[0][0], pixels(&digits)[0][7]);
        let turned = (0..3).fold(first, |data, _| DomainShift::Rotate.apply(&data).unwrap());
        assert_eq!(pixels(&turned), pixels(&digits));
    }
}
