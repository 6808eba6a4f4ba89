//! The numbers of the default experiment, in one place, each with its reason.

use lora_pro_core::{Hyper, Preset, Schedule};

use crate::Shift;

/// Task, network, adapters and training of a comparison; [`Experiment::default`] is what
/// `lora-pro compare` runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Parts of the data for pre-training, training and validation, in [0, 1]; the rest is for
    /// testing.
    pub parts: [f64; 3],
    /// What fine-tuning sees that pre-training did not.
    pub shift: Shift,
    /// Widths of the hidden layers; each hidden layer carries an adapter.
    pub hidden: Vec<usize>,
    /// How the frozen network is made.
    pub pretraining: Pretraining,
    /// Rank r of every adapter.
    pub rank: usize,
    /// LoRA's alpha; s = alpha / r, or alpha / sqrt(r) for rsLoRA.
    pub alpha: f64,
    /// What all methods share: damping, X, betas, eps, decay. Method, learning rate and ratio are
    /// the contender's.
    pub hyper: Hyper,
    /// Examples per step.
    pub batch: usize,
    /// Steps per run.
    pub steps: usize,
    /// Steps over which the learning rate rises; afterwards it falls linearly to 0.
    pub warmup: usize,
    /// Seeds; each fixes the start of A and the order of the data, for all methods alike.
    pub seeds: Vec<u64>,
    /// Points at which a comparison measures the gap, first and last step included.
    pub gap_points: usize,
}

/// How the frozen network is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretraining {
    /// Steps of AdamW.
    pub steps: usize,
    /// Examples per step.
    pub batch: usize,
    /// Learning rate, falling linearly to 0.
    pub lr: f64,
    /// Fixes the start and the order of the data.
    pub seed: u64,
}

impl Default for Experiment {
    fn default() -> Self {
        Experiment {
            parts: [0.4, 0.28, 0.14],
            shift: Shift::Rotate,
            hidden: vec![128, 128, 128],
            pretraining: Pretraining {
                steps: 300,
                batch: 64,
                lr: 1e-3,
                seed: 0,
            },
            rank: 4,
            alpha: 8.0,
            hyper: Preset::default().hyper(),
            batch: 32,
            steps: 200,
            warmup: 0,
            seeds: vec![0, 1, 2],
            gap_points: 11,
        }
    }
}

impl Experiment {
    /// The learning-rate schedule of every run.
    pub fn schedule(&self) -> Schedule {
        Schedule::Linear {
            warmup: self.warmup as u64,
            total: self.steps as u64,
        }
    }
}
