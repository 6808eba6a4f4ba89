//! A frozen network and the examples that it is fine-tuned on.

use std::sync::Arc;

use lora_pro_core::{Backend, Error};

use crate::data::Dataset;
use crate::examples::Examples;
use crate::network::Network;
use crate::pretrain::pretrain;
use crate::run::{permutation, random};
use crate::setup::SmallTask;

/// The frozen network and the data to fine-tune it on.
#[derive(Clone, Debug)]
pub struct Task {
    /// The task in a few words.
    pub name: String,
    /// The network in a few words.
    pub about: String,
    /// The pre-trained network.
    pub base: Network,
    /// Examples to train on.
    pub train: Arc<dyn Examples>,
    /// Examples that choose learning rates.
    pub validation: Arc<dyn Examples>,
    /// Examples that nothing is chosen by.
    pub test: Arc<dyn Examples>,
}

/// Fixes which rows go where.
const SPLIT_SEED: u64 = 0;

impl SmallTask {
    /// Splits the data and pre-trains the network; the same inputs give the same bits.
    pub fn prepare(&self, data: &Dataset, backend: Box<dyn Backend>) -> Result<Task, Error> {
        let [known, train, validation, test] = self.split(data)?;
        let base = pretrain(&self.hidden, &self.pretraining, &known, backend)?;
        let widths = [&[data.inputs()], &self.hidden[..], &[data.classes]].concat();
        let widths: Vec<String> = widths.iter().map(usize::to_string).collect();
        Ok(Task {
            name: format!("{} {}", data.name, self.shift.describe()),
            about: format!(
                "an MLP {} with GELU, pre-trained on {} rows; the hidden layers carry adapters, the head is trained by all",
                widths.join("-"),
                known.len()
            ),
            base,
            train: Arc::new(train),
            validation: Arc::new(validation),
            test: Arc::new(test),
        })
    }

    /// The rows to pre-train on, and shifted, those to train on, to validate and to test.
    pub fn split(&self, data: &Dataset) -> Result<[Dataset; 4], Error> {
        let [known, train, validation, test] = split(self.parts, data)?;
        let shifted = |part: &Dataset| self.shift.apply(part);
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
        let expected = "enough for a row each in pre-training, training, validation and test";
        return Err(Error::invalid(&data.name, "rows", data.len(), expected));
    }
    let part = |k: usize| data.rows(&order[cut[k]..cut[k + 1]]);
    Ok([part(0)?, part(1)?, part(2)?, part(3)?])
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
        assert!(error.contains("rows is 3, but it must be enough for a row each in pre-training, training, validation and test"));
    }
}
