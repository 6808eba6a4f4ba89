//! What fixes a run: with the data and the frozen network, these values determine every bit.

use lora_pro_core::{Config, Error, Scale};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Which parts of the network are trained. The head always is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trainable {
    /// An adapter on every hidden weight.
    Adapters {
        /// Rank r.
        rank: usize,
        /// Scale s.
        scale: Scale,
    },
    /// The hidden weights themselves: full fine-tuning of what carries adapters elsewhere.
    Weights,
    /// Weights and biases of all layers: pre-training.
    Everything,
}

/// What fixes a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// What is trained.
    #[serde(rename = "trains")]
    pub trainable: Trainable,
    /// Method, learning rate, schedule and all else about the optimizer. A group called `head`,
    /// if there is one, applies to the head.
    pub config: Config,
    /// Fixes the start of A and the order of the data.
    pub seed: u64,
    /// Examples per step.
    pub batch: usize,
    /// Steps.
    pub steps: usize,
}

impl RunConfig {
    /// Refuses a batch that is empty or larger than the `rows` to train on; the optimizer checks
    /// the rest.
    pub fn validate(&self, rows: usize) -> Result<(), Error> {
        if (1..=rows).contains(&self.batch) {
            return Ok(());
        }
        let expected = format!("from 1 to {rows}, the number of training rows");
        Err(Error::invalid("the run", "batch", self.batch, expected))
    }
}

/// The random numbers of a seed; every purpose has a stream of its own.
pub(crate) fn random(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// The stream of starting values; epoch e of the data has stream 1 + e.
pub(crate) const START: u64 = 0;

/// `count` numbers in [-bound, bound).
pub(crate) fn uniform(random: &mut ChaCha8Rng, count: usize, bound: f32) -> Vec<f32> {
    (0..count)
        .map(|_| random.random_range(-bound..bound))
        .collect()
}

/// 0 to `len` - 1 in random order.
pub(crate) fn permutation(random: &mut ChaCha8Rng, len: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    order.shuffle(random);
    order
}

/// The rows of a step's batch, steps counted from 0: permutations of all rows, one after another.
/// A pure function of the step, so that a resumed run needs no generator's state.
pub(crate) fn batch_rows(seed: u64, rows: usize, batch: usize, step: usize) -> Vec<u32> {
    let (first, end) = (step * batch, (step + 1) * batch);
    let epochs = first / rows..=(end - 1) / rows;
    let order: Vec<u32> = epochs
        .flat_map(|epoch| permutation(&mut random(seed, 1 + epoch as u64), rows))
        .collect();
    let skipped = first % rows;
    order[skipped..skipped + batch].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_every_row_once() {
        let mut seen: Vec<u32> = (0..5).flat_map(|step| batch_rows(3, 10, 2, step)).collect();
        seen.sort();
        assert_eq!(seen, (0..10).collect::<Vec<u32>>());
    }

    #[test]
    fn batches_continue_across_epochs() {
        let long: Vec<u32> = batch_rows(3, 10, 24, 0);
        let short: Vec<u32> = (0..8).flat_map(|step| batch_rows(3, 10, 3, step)).collect();
        assert_eq!(long, short);
        assert_ne!(long[..10], long[10..20]);
    }
}
