//! One run, step by step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use lora_pro_candle::bridge::candle_error;
use lora_pro_candle::{LoraPro, PeftAdapter};
use lora_pro_core::{AdapterReport, Backend, Error, Optimizer};
use lora_pro_models::{Forward, Parameters};

use crate::adapted::{HEAD, adapted};
use crate::examples::{Batch, Examples};
use crate::network::{Network, Score, scalar};
use crate::run::{RunConfig, batch_rows};

/// A run in progress. Its whole state is saved by [`Trainer::save`].
pub struct Trainer {
    pub(crate) base: Network,
    pub(crate) data: Arc<dyn Examples>,
    pub(crate) run: RunConfig,
    pub(crate) parameters: Parameters,
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

/// The stream of dropout's seed, apart from those of starts and of the data's order.
const DROPOUT: u64 = 0x6472_6f70;

impl Trainer {
    /// A run at its start. `base` stays as it is.
    ///
    /// Refuses a batch that is empty or larger than the data, a rank that does not fit a layer,
    /// and a configuration that is out of range.
    pub fn new(
        base: &Network,
        data: Arc<dyn Examples>,
        run: RunConfig,
        backend: Box<dyn Backend>,
    ) -> Result<Self, Error> {
        run.validate(data.len())?;
        let parameters = adapted(base, &run)?;
        Self::start(base, parameters, data, run, backend)
    }

    /// A run that goes on from `adapter`, by [`RunConfig::continuing`]. Its checkpoints are loaded as
    /// those of any run.
    ///
    /// Refuses an adapter that does not fit as well.
    pub fn continuing(
        base: &Network,
        data: Arc<dyn Examples>,
        run: RunConfig,
        adapter: &PeftAdapter,
        backend: Box<dyn Backend>,
    ) -> Result<Self, Error> {
        run.validate(data.len())?;
        let run = run.continuing(adapter, base)?;
        let parameters = adapted(&base.adapted(adapter)?, &run)?;
        Self::start(base, parameters, data, run, backend)
    }

    fn start(
        base: &Network,
        parameters: Parameters,
        data: Arc<dyn Examples>,
        run: RunConfig,
        backend: Box<dyn Backend>,
    ) -> Result<Self, Error> {
        let mut optimizer = LoraPro::new(backend, run.config.clone())?;
        let head = base
            .model
            .head()
            .filter(|_| run.config.groups.contains_key(HEAD));
        parameters.register(&mut optimizer, |name| {
            let module = name.rsplit_once('.').map(|(module, _)| module);
            (head.is_some() && module == head).then_some(HEAD)
        })?;
        Ok(Trainer {
            base: base.clone(),
            data,
            run,
            parameters,
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
        let Some((loss, gradients)) = self.gradients()? else {
            self.diverged = true;
            return Ok(());
        };
        let start = Instant::now();
        match self.optimizer.step(&gradients) {
            Ok(_) => self.optimizer_time.push(start.elapsed()),
            Err(Error::NonFinite { .. }) => {
                self.diverged = true;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.diverged = !self.parameters.is_finite().map_err(candle_error)?;
        self.history.losses.push(loss);
        self.history.updates.push(self.largest_update());
        Ok(())
    }

    /// Loss and gradients of the coming step's batch; `None` where the loss is not finite.
    fn gradients(&self) -> Result<Option<(f64, GradStore)>, Error> {
        let rows = self.rows();
        let parts = rows.chunks(rows.len().div_ceil(self.run.micro_batches));
        let batches: Vec<Batch> = parts
            .map(|rows| self.data.batch(rows))
            .collect::<Result<_, _>>()?;
        let total: usize = batches.iter().map(|batch| batch.target.count()).sum();
        let (mut loss, mut sum) = (0.0, None);
        for (k, batch) in batches.iter().enumerate() {
            // The mean over the whole batch is the weighted sum of the parts' means.
            let weight = batch.target.count() as f64 / total.max(1) as f64;
            let part = (self.loss(batch, k)? * weight).map_err(candle_error)?;
            let value = scalar(&part).map_err(candle_error)?;
            if !value.is_finite() {
                return Ok(None);
            }
            loss += value;
            let gradients = part.backward().map_err(candle_error)?;
            sum = Some(match sum {
                None => gradients,
                Some(sum) => self.add(sum, &gradients).map_err(candle_error)?,
            });
        }
        Ok(sum.map(|sum| (loss, sum)))
    }

    fn add(&self, mut sum: GradStore, more: &GradStore) -> candle_core::Result<GradStore> {
        for var in self.vars() {
            if let Some(more) = more.get(var) {
                let total = match sum.get(var) {
                    Some(sum) => (sum + more)?,
                    None => more.clone(),
                };
                sum.insert(var, total);
            }
        }
        Ok(sum)
    }

    /// Everything that is trained.
    fn vars(&self) -> impl Iterator<Item = &Var> {
        let adapters = self.parameters.adapters();
        let factors = adapters.flat_map(|adapter| [adapter.a(), adapter.b()]);
        factors.chain(self.parameters.trained().map(|(_, var)| var))
    }

    /// The rows of the coming step.
    fn rows(&self) -> Vec<u32> {
        let step = self.steps_done();
        batch_rows(self.run.seed, self.data.as_ref(), self.run.batch, step)
    }

    /// The examples of the coming step.
    pub(crate) fn batch(&self) -> Result<Batch, Error> {
        self.data.batch(&self.rows())
    }

    /// Tokens of the coming step's batch, without padding; examples, where they are not text.
    pub fn tokens(&self) -> usize {
        let rows = self.rows();
        rows.iter().map(|&row| self.data.length(row as usize)).sum()
    }

    /// The loss on part `part` of a step's batch.
    fn loss(&self, batch: &Batch, part: usize) -> Result<Tensor, Error> {
        let stream = (self.steps_done() * self.run.micro_batches + part) as u64;
        let (dropout, seed) = (self.run.lora_dropout, self.run.seed ^ DROPOUT);
        let pass = Forward::training(&self.parameters, dropout, seed, stream);
        let outcome = batch.outcome(self.base.model.as_ref(), &pass);
        Ok(outcome.map_err(candle_error)?.loss)
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
        let head = |name: &str| {
            let module = name.rsplit_once('.').map(|(module, _)| module);
            module.is_some() && module == self.base.model.head()
        };
        let params = params.filter(|slot| !head(&slot.spec.name));
        adapters.chain(params.map(|slot| slot.state.bytes())).sum()
    }

    /// The frozen network.
    pub fn base(&self) -> &Network {
        &self.base
    }

    /// The parameters in training.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The network as trained so far, adapters merged.
    pub fn network(&self) -> Result<Network, Error> {
        let network = Network {
            model: self.base.model.clone(),
            parameters: self.parameters.clone(),
        };
        network.merged()
    }

    /// The adapter as trained so far, with the head and what else was trained, in PEFT's form; `base_name` tells where the
    /// frozen network comes from.
    ///
    /// Rejects a run that trains no adapters.
    pub fn peft(&self, base_name: &str) -> Result<PeftAdapter, Error> {
        if self.parameters.adapters().next().is_none() {
            let (value, expected) = ("full fine-tuning", "one with adapters");
            return Err(Error::invalid("the run", "method", value, expected));
        }
        let mut adapter = PeftAdapter::new(base_name, self.parameters.adapters())?;
        adapter.config.task_type = self.base.model.task_type().map(String::from);
        adapter.config.lora_dropout = self.run.lora_dropout;
        let mut saved = self.parameters.trained();
        saved.try_fold(adapter, |adapter, (name, var)| {
            adapter.with_saved(name, var)
        })
    }

    /// How well the network does on the examples so far.
    pub fn evaluate(&self, examples: &dyn Examples) -> Result<Score, Error> {
        self.network()?.evaluate(examples)
    }
}
