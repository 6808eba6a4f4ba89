//! The numbers of the default experiment, in one place, each with its reason.

use lora_pro_core::{Hyper, Preset, Schedule};

use crate::domain_shift::DomainShift;

/// Task, network, adapters and training of a comparison; [`Experiment::default`] is what
/// `lora-pro compare` runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Parts of the data for pre-training, training and validation, in [0, 1]; the rest is for
    /// testing.
    pub parts: [f64; 3],
    /// What fine-tuning sees that pre-training did not.
    pub shift: DomainShift,
    /// Widths of the hidden layers; each hidden layer carries an adapter.
    pub hidden: Vec<usize>,
    /// How the frozen network is made.
    pub pretraining: Pretraining,
    /// Rank r of every adapter.
    pub rank: usize,
    /// LoRA's alpha; s = alpha / r, or alpha / sqrt(r) for rsLoRA.
    pub alpha: f64,
    /// What all methods share: damping, X, betas, eps, decay. Method, learning rate and ratio are
    /// the method's.
    pub hyper: Hyper,
    /// Examples per step.
    pub batch: usize,
    /// Steps per run.
    pub steps: usize,
    /// The learning-rate schedule of every run.
    pub schedule: Schedule,
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
    /// Examples per step; all of them where there are fewer.
    pub batch: usize,
    /// Learning rate, falling linearly to 0.
    pub lr: f64,
    /// Fixes the start and the order of the data.
    pub seed: u64,
}

impl Default for Experiment {
    fn default() -> Self {
        Experiment {
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
            rank: 4,
            alpha: 8.0,
            hyper: Preset::Recommended.hyper(),
            batch: 32,
            steps: 300,
            schedule: Schedule::Constant,
            seeds: vec![0, 1, 2, 3, 4],
            gap_points: 11,
        }
    }
}

impl Experiment {
    /// The default experiment for data of one's own: further rows of the same kind.
    pub fn without_shift() -> Self {
        Experiment {
            shift: DomainShift::None,
            ..Self::default()
        }
    }
}
