//! What fixes a run: with the data and the frozen network, these values determine every bit.

use std::collections::BTreeSet;

use lora_pro_candle::{PeftAdapter, Targets};
use lora_pro_core::{Config, Error, Scale};
use lora_pro_models::Model;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::examples::Examples;
use crate::network::Network;

/// Which parts of the network are trained. The head always is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trainable {
    /// An adapter on every adapted module.
    Adapters {
        /// Rank r.
        rank: usize,
        /// Scale s.
        scale: Scale,
    },
    /// The weights themselves: full fine-tuning of what carries adapters elsewhere.
    Weights,
    /// All tensors: full fine-tuning of everything, and pre-training.
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
    /// Fixes the start of A, the order of the data and what dropout drops.
    pub seed: u64,
    /// Examples per step.
    pub batch: usize,
    /// Parts that a batch is passed through the model in, one after another, to save memory; the
    /// step is the same up to rounding.
    #[serde(default = "one")]
    pub micro_batches: usize,
    /// Steps.
    pub steps: usize,
    /// Probability of dropout before A.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Which modules carry adapters, or have their weights trained instead, and which of them have a
    /// rank or an alpha of their own; all linear modules but the head.
    #[serde(default)]
    pub targets: Targets,
}

fn one() -> usize {
    1
}

/// A module that carries an adapter, or whose weight is trained instead.
pub(crate) struct AdaptedModule {
    pub name: String,
    pub rank: usize,
    pub scale: Scale,
}

impl RunConfig {
    /// Refuses a batch that is empty or larger than the `rows` to train on, and dropout that leaves
    /// nothing; the optimizer checks the rest.
    pub fn validate(&self, rows: usize) -> Result<(), Error> {
        let range = |field, value: usize, most: usize, what: &str| match (1..=most).contains(&value)
        {
            true => Ok(()),
            false => {
                let expected = format!("from 1 to {most}, {what}");
                Err(Error::invalid("the run", field, value, expected))
            }
        };
        range("batch", self.batch, rows, "the number of training rows")?;
        range("micro_batches", self.micro_batches, self.batch, "the batch")?;
        match (0.0..1.0).contains(&self.lora_dropout) {
            true => Ok(()),
            false => {
                let (value, expected) = (self.lora_dropout, "at least 0 and below 1");
                Err(Error::invalid("the run", "lora_dropout", value, expected))
            }
        }
    }

    /// The same for what goes on from `adapter`, on `base`: with its modules, ranks and scales, and with
    /// what it trained as a whole.
    ///
    /// Rejects an adapter that does not fit.
    pub fn continuing(mut self, adapter: &PeftAdapter, base: &Network) -> Result<Self, Error> {
        let adapted = base.adapted(adapter)?;
        let mut config = PeftAdapter::new("", adapted.parameters.adapters())?.config;
        let head = base.model.head();
        let saved = adapter
            .saved()
            .filter_map(|(name, _)| name.rsplit_once('.'));
        let saved = saved.map(|(module, _)| module);
        let mut saved: Vec<String> = saved
            .filter(|module| Some(*module) != head)
            .map(String::from)
            .collect();
        saved.dedup();
        config.targets.modules_to_save = (!saved.is_empty()).then_some(saved);
        self.trainable = Trainable::Adapters {
            rank: config.r,
            scale: match config.use_rslora {
                true => Scale::RsLora(config.lora_alpha),
                false => Scale::Alpha(config.lora_alpha),
            },
        };
        self.targets = config.targets;
        Ok(self)
    }

    /// The modules that carry adapters, or would, with rank and scale.
    ///
    /// Rejects targets that the model does not have.
    pub(crate) fn modules(&self, model: &dyn Model) -> Result<Vec<AdaptedModule>, Error> {
        let (rank, scale) = match self.trainable {
            Trainable::Adapters { rank, scale } => (rank, scale),
            _ => (1, Scale::Alpha(1.0)),
        };
        let linear = model.linear_modules();
        self.targets.refuse_idle(&linear)?;
        let chosen = self.targets.select(&linear, model.head())?;
        let patterns = self.targets.patterns()?;
        patterns.validate(&chosen)?;
        let module = |name: String| {
            let alpha = patterns.alpha(&name)?;
            Ok(AdaptedModule {
                rank: patterns.rank(&name)?.unwrap_or(rank),
                scale: alpha.map_or(scale, |alpha| with_alpha(scale, alpha)),
                name,
            })
        };
        chosen.into_iter().map(module).collect()
    }
}

impl RunConfig {
    /// The first field that `other` has otherwise, with both values, such as `config.lr 0.001, not 0.5`;
    /// `None` for the same run.
    pub fn difference(&self, other: &RunConfig) -> Option<String> {
        let fields = |run: &RunConfig| serde_json::to_value(run).unwrap_or_default();
        first_difference("", &fields(self), &fields(other))
    }
}

fn first_difference(name: &str, own: &Value, other: &Value) -> Option<String> {
    let (Value::Object(own), Value::Object(other)) = (own, other) else {
        let name = name.trim_start_matches('.');
        return (own != other).then(|| format!("{name} {own}, not {other}"));
    };
    let keys: BTreeSet<&String> = own.keys().chain(other.keys()).collect();
    keys.into_iter().find_map(|key| {
        let value = |fields: &Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
        first_difference(&format!("{name}.{key}"), &value(own), &value(other))
    })
}

/// A scale of the same kind with another alpha.
fn with_alpha(scale: Scale, alpha: f64) -> Scale {
    match scale {
        Scale::RsLora(_) => Scale::RsLora(alpha),
        _ => Scale::Alpha(alpha),
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

/// Batches whose examples are sorted by length together.
const BUCKET: usize = 16;

/// The order in which an epoch visits the examples: random, but examples of similar lengths stand
/// together, so that a batch needs little padding.
fn epoch_order(seed: u64, epoch: usize, examples: &dyn Examples, batch: usize) -> Vec<u32> {
    let mut random = random(seed, 1 + epoch as u64);
    let mut order = permutation(&mut random, examples.len());
    let length = |row: &u32| examples.length(*row as usize);
    let alike = order.first().map(length);
    if order.iter().all(|row| Some(length(row)) == alike) {
        return order;
    }
    for bucket in order.chunks_mut(BUCKET * batch) {
        bucket.sort_by_key(length);
    }
    let mut batches: Vec<&[u32]> = order.chunks(batch).collect();
    batches.shuffle(&mut random);
    batches.concat()
}

/// The rows of a step's batch, steps counted from 0: epochs one after another. A pure function of
/// the step, so that a resumed run needs no generator's state.
pub(crate) fn batch_rows(
    seed: u64,
    examples: &dyn Examples,
    batch: usize,
    step: usize,
) -> Vec<u32> {
    let rows = examples.len();
    let (first, end) = (step * batch, (step + 1) * batch);
    let epochs = first / rows..=(end - 1) / rows;
    let order: Vec<u32> = epochs
        .flat_map(|epoch| epoch_order(seed, epoch, examples, batch))
        .collect();
    let skipped = first % rows;
    order[skipped..skipped + batch].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::Batch;

    /// Ten examples of one length, or of ten.
    #[derive(Debug)]
    struct Ten {
        alike: bool,
    }

    impl Examples for Ten {
        fn name(&self) -> &str {
            "ten"
        }

        fn len(&self) -> usize {
            10
        }

        fn batch(&self, _rows: &[u32]) -> Result<Batch, Error> {
            Err(Error::invalid("ten", "batch", "none", "not asked for"))
        }

        fn length(&self, row: usize) -> usize {
            if self.alike { 1 } else { row }
        }

        fn checksum(&self) -> Result<u32, Error> {
            Ok(0)
        }
    }

    #[test]
    fn an_epoch_visits_every_row_once() {
        for alike in [true, false] {
            let rows = |step| batch_rows(3, &Ten { alike }, 2, step);
            let mut seen: Vec<u32> = (0..5).flat_map(rows).collect();
            seen.sort();
            assert_eq!(seen, (0..10).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn batches_continue_across_epochs() {
        let ten = Ten { alike: true };
        let long: Vec<u32> = batch_rows(3, &ten, 24 / 3, 0);
        let short: Vec<u32> = (0..4)
            .flat_map(|step| batch_rows(3, &ten, 2, step))
            .collect();
        assert_eq!(long, short);
        let two: Vec<u32> = (0..4)
            .flat_map(|step| batch_rows(3, &ten, 5, step))
            .collect();
        assert_ne!(two[..10], two[10..]);
    }

    #[test]
    fn a_batch_has_similar_lengths() {
        for step in 0..5 {
            let rows = batch_rows(3, &Ten { alike: false }, 2, step);
            assert_eq!(rows[0] + 1, rows[1]);
        }
    }
}
