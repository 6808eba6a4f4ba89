//! One run, step by step.

use std::time::{Duration, Instant};

use candle_core::Tensor;
use candle_nn::loss::cross_entropy;
use lora_pro_candle::bridge::candle_error;
use lora_pro_candle::{LoraPro, PeftAdapter};
use lora_pro_core::{AdapterReport, Backend, Error, Optimizer};

use crate::adapted::Adapted;
use crate::data::Dataset;
use crate::network::Network;
use crate::run::{RunConfig, batch_rows};

/// A run in progress. Its whole state is saved by [`Trainer::save`].
pub struct Trainer {
    pub(crate) base: Network,
    pub(crate) data: Dataset,
    pub(crate) data_crc32: u32,
    pub(crate) run: RunConfig,
    pub(crate) adapted: Adapted,
    pub(crate) optimizer: LoraPro,
    pub(crate) history: History,
    pub(crate) diverged: bool,
    optimizer_time: Vec<Duration>,
}

/// What has happened so far: one number per step taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Training loss on the step's batch, before the step.
    pub losses: Vec<f64>,
    /// Largest |lr dA| / |A| over the adapters; 0 where there are none.
    pub updates: Vec<f64>,
}

impl Trainer {
    /// A run at its start. `data` is copied by reference; `base` stays as it is.
    ///
    /// Refuses a batch that is empty or larger than the data, a rank that does not fit a layer,
    /// and a configuration that is out of range.
    pub fn new(
        base: &Network,
        data: &Dataset,
        run: RunConfig,
        backend: Box<dyn Backend>,
    ) -> Result<Self, Error> {
        run.validate(data.len())?;
        let adapted = Adapted::new(base, &run)?;
        let mut optimizer = LoraPro::new(backend, run.config.clone())?;
        adapted.register(&mut optimizer)?;
        Ok(Trainer {
            base: base.clone(),
            data: data.clone(),
            data_crc32: data.checksum()?,
            run,
            adapted,
            optimizer,
            history: History::default(),
            diverged: false,
            optimizer_time: Vec::new(),
        })
    }

    /// Takes one step. A loss or a number that is not finite ends the run as
    /// [`Trainer::diverged`]; nothing happens after the end.
    pub fn step(&mut self) -> Result<(), Error> {
        if self.finished() {
            return Ok(());
        }
        let batch = self.batch()?;
        let loss = self.loss(&batch)?;
        let value = f64::from(loss.to_scalar::<f32>().map_err(candle_error)?);
        if !value.is_finite() {
            self.diverged = true;
            return Ok(());
        }
        let gradients = loss.backward().map_err(candle_error)?;
        let start = Instant::now();
        match self.optimizer.step(&gradients) {
            Ok(_) => self.optimizer_time.push(start.elapsed()),
            Err(Error::NonFinite { .. }) => {
                self.diverged = true;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.diverged = !self.adapted.is_finite().map_err(candle_error)?;
        self.history.losses.push(value);
        self.history.updates.push(self.largest_update());
        Ok(())
    }

    /// The rows of the coming step.
    pub(crate) fn batch(&self) -> Result<Dataset, Error> {
        let step = self.steps_done();
        self.data.rows(&batch_rows(
            self.run.seed,
            self.data.len(),
            self.run.batch,
            step,
        ))
    }

    fn loss(&self, batch: &Dataset) -> Result<Tensor, Error> {
        let logits = self.adapted.forward(&batch.features);
        logits
            .and_then(|logits| cross_entropy(&logits, &batch.labels))
            .map_err(candle_error)
    }

    fn largest_update(&self) -> f64 {
        self.reports()
            .map(|(_, report)| report.relative_update.a)
            .fold(0.0, f64::max)
    }

    /// True when all steps are taken, or the run has diverged.
    pub fn finished(&self) -> bool {
        self.diverged || self.steps_done() >= self.run.steps
    }

    /// True once the loss or a trained number was not finite.
    pub fn diverged(&self) -> bool {
        self.diverged
    }

    /// Steps taken.
    pub fn steps_done(&self) -> usize {
        self.history.losses.len()
    }

    /// What fixes the run.
    pub fn run(&self) -> &RunConfig {
        &self.run
    }

    /// One number per step taken.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Names of the adapters and what the last step did to each.
    pub fn reports(&self) -> impl Iterator<Item = (&str, &AdapterReport)> {
        self.optimizer()
            .adapters()
            .iter()
            .map(|slot| (slot.spec.name.as_str(), &slot.report))
    }

    /// The optimizer: configuration, backend, state.
    pub fn optimizer(&self) -> &Optimizer {
        self.optimizer.optimizer()
    }

    /// Median time of the optimizer's steps, with the exchange of memory with candle, since this
    /// object was made.
    pub fn optimizer_time(&self) -> Duration {
        let mut times = self.optimizer_time.clone();
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    /// Bytes of optimizer state for the adapted weights; the head's, which is the same for all
    /// methods, is not counted.
    pub fn state_bytes(&self) -> usize {
        let adapters = self
            .optimizer()
            .adapters()
            .iter()
            .map(|slot| slot.state.bytes());
        let params = self.optimizer().params().iter();
        let params = params.filter(|slot| !slot.spec.name.starts_with("head."));
        adapters.chain(params.map(|slot| slot.state.bytes())).sum()
    }

    /// The frozen network.
    pub fn base(&self) -> &Network {
        &self.base
    }

    /// The network as trained so far, adapters merged.
    pub fn network(&self) -> Result<Network, Error> {
        self.adapted.merged()
    }

    /// The adapter as trained so far, with the head, in PEFT's form; `base_name` tells where the
    /// frozen network comes from.
    ///
    /// Rejects a run that trains no adapters.
    pub fn peft(&self, base_name: &str) -> Result<PeftAdapter, Error> {
        if self.adapted.adapters().next().is_none() {
            let (value, expected) = ("full fine-tuning", "one with adapters");
            return Err(Error::invalid("the run", "method", value, expected));
        }
        PeftAdapter::new(base_name, self.adapted.adapters())?.module("head", &self.adapted.head)
    }

    /// The part of the rows that the network classifies correctly, in [0, 1].
    pub fn accuracy(&self, data: &Dataset) -> Result<f64, Error> {
        self.network()?.accuracy(data)
    }
}
