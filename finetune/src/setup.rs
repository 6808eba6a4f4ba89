//! The numbers of the default experiments, in one place, each with its reason.

use std::collections::BTreeMap;

use lora_pro_core::{Error, Hyper, Preset, Schedule};
use serde::{Deserialize, Serialize};

use crate::candidate::Variant;
use crate::domain_shift::DomainShift;
use crate::method_spec::SMALL;
use crate::network::Network;

/// What is compared on a task: methods, learning rates, seeds, and how each run trains. The default
/// is what `lora-pro compare` runs on the digits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Experiment {
    /// The methods, by [`MethodSpec::id`](crate::MethodSpec::id), and variants by their names.
    pub methods: Vec<String>,
    /// Methods with something changed, by the names that tables have for them.
    pub variants: BTreeMap<String, Variant>,
    /// The learning rates that every method is tried at, ascending.
    pub lrs: Vec<f64>,
    /// Rank r of every adapter.
    pub rank: usize,
    /// LoRA's alpha; s = alpha / r, or alpha / sqrt(r) for rsLoRA.
    pub alpha: f64,
    /// What all methods share: damping, X, betas, eps, decay. Method, learning rate and ratio are
    /// the method's.
    #[serde(rename = "optimizer")]
    pub hyper: Hyper,
    /// The head's learning rate, the same for all methods; `None` gives it the method's.
    pub head_lr: Option<f64>,
    /// Global-norm clip of all gradients of a step.
    pub max_grad_norm: Option<f64>,
    /// Probability of dropout before A.
    pub lora_dropout: f64,
    /// Examples per step.
    pub batch: usize,
    /// Parts that a batch is passed through the model in.
    pub micro_batches: usize,
    /// Steps per run.
    pub steps: usize,
    /// The learning-rate schedule of every run.
    pub schedule: Schedule,
    /// Seeds; each fixes the start of A and the order of the data, for all methods alike.
    pub seeds: Vec<u64>,
    /// Points at which the gap is measured, first and last step included; 0 leaves it out.
    pub gap_points: usize,
    /// Whether the distance to full fine-tuning's weights is measured, which takes one run of it in
    /// memory for each learning rate and seed.
    pub distance: bool,
}

/// A small network and the data that it is pre-trained and fine-tuned on; the default are the digits.
#[derive(Clone, Debug, PartialEq)]
pub struct SmallTask {
    /// Parts of the data for pre-training, training and validation, in [0, 1]; the rest is for
    /// testing.
    pub parts: [f64; 3],
    /// What fine-tuning sees that pre-training did not.
    pub shift: DomainShift,
    /// Widths of the hidden layers; each hidden layer carries an adapter.
    pub hidden: Vec<usize>,
    /// How the frozen network is made.
    pub pretraining: Pretraining,
}

/// How the frozen network is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretraining {
    /// Steps of AdamW.
    pub steps: usize,
    /// Examples per step; all of them where there are fewer.
    pub batch: usize,
    /// Learning rate, falling linearly to 0.
    pub lr: f64,
    /// Fixes the start and the order of the data.
    pub seed: u64,
}

impl Default for SmallTask {
    fn default() -> Self {
        SmallTask {
            // 599, 399, 400 and 399 of the 1,797 digits: one of 399 is a quarter of one per cent.
            parts: [1.0 / 3.0, 2.0 / 9.0, 2.0 / 9.0],
            // The pre-trained network classifies 12 % of the turned images correctly.
            shift: DomainShift::Rotate,
            // 128 tells the same and takes a third longer.
            hidden: vec![96, 96, 96],
            pretraining: Pretraining {
                steps: 300,
                batch: 64,
                lr: 1e-3,
                seed: 0,
            },
        }
    }
}

impl SmallTask {
    /// The default for data of one's own: further rows of the same kind.
    pub fn without_shift() -> Self {
        SmallTask {
            shift: DomainShift::None,
            ..Self::default()
        }
    }
}

impl Default for Experiment {
    fn default() -> Self {
        Experiment {
            methods: SMALL.map(String::from).to_vec(),
            variants: BTreeMap::new(),
            lrs: vec![3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
            rank: 4,
            alpha: 8.0,
            hyper: Preset::Recommended.hyper(),
            head_lr: None,
            max_grad_norm: None,
            lora_dropout: 0.0,
            batch: 32,
            micro_batches: 1,
            steps: 300,
            schedule: Schedule::Constant,
            seeds: vec![0, 1, 2, 3, 4],
            gap_points: 11,
            distance: true,
        }
    }
}

/// Numbers in linear layers above which a comparison is short by default.
const LARGE: usize = 4_000_000;

/// Warm-up over 6 % of the steps, then down along half a cosine to 0 after the last step.
fn cosine(steps: usize) -> Schedule {
    let steps = steps as u64;
    Schedule::Cosine {
        warmup: steps * 6 / 100,
        total: steps + 1,
    }
}

impl Experiment {
    /// The default for a pre-trained model and so many texts to train on.
    pub fn for_text(rows: usize) -> Self {
        let batch = 32;
        let steps = rows.div_ceil(batch);
        Experiment {
            // A decade on both sides of the rates that full fine-tuning of small encoders likes.
            lrs: vec![1e-4, 3e-4, 1e-3],
            rank: 8,
            alpha: 16.0,
            max_grad_norm: Some(1.0),
            batch,
            steps,
            schedule: cosine(steps),
            seeds: vec![0],
            gap_points: 3,
            ..Self::default()
        }
    }

    /// The default for a pre-trained language model and so many texts to train on: smaller batches, since
    /// each text has many tokens to learn.
    pub fn for_language(rows: usize) -> Self {
        let batch = 8;
        let steps = rows.div_ceil(batch);
        Experiment {
            batch,
            steps,
            schedule: cosine(steps),
            ..Self::for_text(rows)
        }
    }

    /// The default of a comparison on a network. Where its linear layers are large, every method at
    /// every rate for an epoch would take hours on two cores: then one learning rate, and 100 steps
    /// at most.
    pub fn for_comparison(self, network: &Network) -> Result<Self, Error> {
        if network.linear_weights()? <= LARGE {
            return Ok(self);
        }
        let steps = self.steps.min(100);
        Ok(Experiment {
            lrs: vec![3e-4],
            steps,
            schedule: self.schedule_over(steps),
            ..self
        })
    }

    /// The schedule of a run of so many steps: the experiment's, stretched to end with it.
    pub fn schedule_over(&self, steps: usize) -> Schedule {
        match self.schedule {
            Schedule::Cosine { total, .. } if total == self.steps as u64 + 1 => cosine(steps),
            schedule => schedule,
        }
    }
}
