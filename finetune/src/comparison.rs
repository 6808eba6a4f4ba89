//! What a comparison of methods found, as plain data: the table and the report are made from it.

use lora_pro_core::Manifest;
use serde::{Deserialize, Serialize};

use crate::examples::Metric;

/// All that a comparison did and found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// What was compared, on what.
    pub setup: Setup,
    /// One entry per method; full fine-tuning comes first.
    pub methods: Vec<MethodResult>,
}

/// What was compared, on what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The data and the task, in a sentence.
    pub task: String,
    /// The network, in a sentence.
    pub network: String,
    /// Rank r of every adapter.
    pub rank: usize,
    /// LoRA's alpha.
    pub alpha: f64,
    /// Examples per step.
    pub batch: usize,
    /// Steps per run.
    pub steps: usize,
    /// Seeds; each fixes the start of A and the order of the data.
    pub seeds: Vec<u64>,
    /// Sizes of the training, validation and test split.
    pub split: [usize; 3],
    /// What is measured on the test split.
    pub metric: Metric,
    /// That number before any fine-tuning, at most 1.
    pub score_before: f64,
    /// Runs that the comparison was to have, and those that are done.
    pub runs: [usize; 2],
    /// The backend that stepped the adapters.
    pub backend: Manifest,
    /// Wall-clock seconds of the whole comparison.
    pub seconds: f64,
}

/// One method over its learning-rate grid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MethodResult {
    /// Its name in tables: `LoRA-Pro full`.
    pub name: String,
    /// One entry per learning rate, ascending.
    pub rates: Vec<RateResult>,
    /// Learning rate with the highest mean validation accuracy; of equals, the smallest.
    pub best_lr: f64,
    /// Seconds of one optimizer step alone (forward and backward not counted), median.
    pub seconds_per_step: f64,
    /// Bytes of optimizer state for the adapted weights; the head's is the same for all methods and
    /// not counted.
    pub state_bytes: usize,
}

/// One method at one learning rate, over all seeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RateResult {
    /// The learning rate.
    pub lr: f64,
    /// One run per seed.
    pub runs: Vec<RunResult>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Its seed.
    pub seed: u64,
    /// [`Setup::metric`] on the validation split at the end, at most 1.
    pub validation_score: f64,
    /// The same on the test split.
    pub test_score: f64,
    /// For classes, which test examples are right: a `1` or a `0` for each.
    pub test_right: String,
    /// Mean training loss of the last tenth of the steps.
    pub final_loss: f64,
    /// ||W - W_full||_F / ||W_full - W0||_F over all adapted weights, where W_full is full
    /// fine-tuning's result with the same learning rate, seed and data order; `None` for full
    /// fine-tuning itself, and where a run diverged.
    pub distance_to_full: Option<f64>,
    /// For full fine-tuning only, the distance to its own run with the next seed: what another
    /// order of the data alone does. Distances above it say nothing about a method.
    pub distance_by_order: Option<f64>,
    /// (step, ||g - E||_F / ||g||_F over all adapted weights), at step 1, in between and at the end.
    /// Plain LoRA's own E grows with its factors, so this can exceed 1.
    pub gap: Vec<(usize, f64)>,
    /// The same after the best rescaling of E, the smallest ||g - c E||_F / ||g||_F; no different
    /// for LoRA-Pro, whose E is a projection.
    pub gap_rescaled: Vec<(usize, f64)>,
    /// Training loss of every step.
    pub losses: Vec<f64>,
    /// Largest |lr dA| / |A| over the adapters in each of the first fifty steps; empty where
    /// there are no adapters.
    pub first_updates: Vec<f64>,
    /// True where the loss or a weight stopped being finite.
    pub diverged: bool,
}

/// Mean and standard error.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct MeanStdErr {
    /// The mean.
    pub mean: f64,
    /// The standard error of the mean.
    pub error: f64,
}

impl MeanStdErr {
    /// Of some numbers; the error of fewer than two is 0.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        let error = if values.len() < 2 {
            0.0
        } else {
            (squares / (count - 1.0) / count).sqrt()
        };
        MeanStdErr { mean, error }
    }
}

impl MethodResult {
    /// The runs at one learning rate of the grid.
    pub fn at(&self, lr: f64) -> Option<&RateResult> {
        self.rates.iter().find(|rate| rate.lr == lr)
    }
}

impl RateResult {
    /// Mean and error of one number per run.
    pub fn spread(&self, number: impl Fn(&RunResult) -> f64) -> MeanStdErr {
        MeanStdErr::of(&self.runs.iter().map(number).collect::<Vec<_>>())
    }
}
