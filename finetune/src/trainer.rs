//! One run, step by step.

use std::time::{Duration, Instant};

use candle_core::{Tensor, backprop::GradStore};
use candle_nn::loss::cross_entropy;
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterReport, Backend, Error, Optimizer, ParamId, ParamIo,
};

use crate::{
    Dataset, Network, Run,
    adapted::Adapted,
    bridge::{Borrowed, candle},
    run::batch_rows,
};

/// A run in progress. Its whole state is saved by [`Trainer::save`].
pub struct Trainer {
    pub(crate) base: Network,
    pub(crate) data: Dataset,
    pub(crate) data_crc32: u32,
    pub(crate) run: Run,
    pub(crate) adapted: Adapted,
    pub(crate) optimizer: Optimizer,
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
        run: Run,
        backend: Box<dyn Backend>,
    ) -> Result<Self, Error> {
        let adapted = Adapted::new(base, &run)?;
        let mut optimizer = Optimizer::new(backend, run.config.clone())?;
        for pair in &adapted.adapters {
            optimizer.add_adapter(pair.spec.clone())?;
        }
        for param in &adapted.params {
            optimizer.add_param(param.spec.clone())?;
        }
        Self::assemble(base.clone(), data.clone(), run, adapted, optimizer)
    }

    pub(crate) fn assemble(
        base: Network,
        data: Dataset,
        run: Run,
        adapted: Adapted,
        optimizer: Optimizer,
    ) -> Result<Self, Error> {
        run.validate(data.len())?;
        let data_crc32 = data.checksum()?;
        let (history, optimizer_time) = (History::default(), Vec::new());
        Ok(Trainer {
            base,
            data,
            data_crc32,
            run,
            adapted,
            optimizer,
            history,
            diverged: false,
            optimizer_time,
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
        let value = f64::from(loss.to_scalar::<f32>().map_err(candle)?);
        if !value.is_finite() {
            self.diverged = true;
            return Ok(());
        }
        let gradients = loss.backward().map_err(candle)?;
        match self.update(&gradients) {
            Ok(()) => {}
            Err(Error::NonFinite { .. }) => {
                self.diverged = true;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.diverged = !self.adapted.publish()?;
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
            .map_err(candle)
    }

    /// One step of the optimizer, on gradients borrowed from candle.
    fn update(&mut self, gradients: &GradStore) -> Result<(), Error> {
        let Adapted {
            adapters, params, ..
        } = &mut self.adapted;
        let borrow_pair = |pair: &_| borrow_pair(pair, gradients);
        let of_pairs = adapters
            .iter()
            .map(borrow_pair)
            .collect::<Result<Vec<_>, _>>()?;
        let of_params = params.iter().map(|param| param.value.gradient(gradients));
        let of_params = of_params.collect::<Result<Vec<_>, _>>()?;
        let pair_io = (0..)
            .zip(adapters)
            .zip(&of_pairs)
            .map(|((id, pair), [grad_a, grad_b])| {
                Ok(AdapterIo::new(
                    AdapterId::from_index(id),
                    pair.a.host.view_mut(),
                    pair.b.host.view_mut(),
                    grad_a.view()?,
                    grad_b.view()?,
                ))
            });
        let param_io = (0..)
            .zip(params)
            .zip(&of_params)
            .map(|((id, param), grad)| {
                let (value, grad) = (param.value.host.view_mut(), grad.view()?);
                Ok(ParamIo::new(ParamId::from_index(id), value, grad))
            });
        let mut pair_io = pair_io.collect::<Result<Vec<_>, Error>>()?;
        let mut param_io = param_io.collect::<Result<Vec<_>, Error>>()?;
        let start = Instant::now();
        self.optimizer
            .step_with_params(&mut pair_io, &mut param_io)?;
        self.optimizer.sync()?;
        self.optimizer_time.push(start.elapsed());
        Ok(())
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
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// One number per step taken.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Names of the adapters and what the last step did to each.
    pub fn reports(&self) -> impl Iterator<Item = (&str, &AdapterReport)> {
        self.optimizer
            .adapters()
            .iter()
            .map(|slot| (slot.spec.name.as_str(), &slot.report))
    }

    /// The optimizer: configuration, backend, state.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// Median time of the optimizer's steps alone, since this object was made.
    pub fn optimizer_time(&self) -> Duration {
        let mut times = self.optimizer_time.clone();
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    /// Bytes of optimizer state for the adapted weights; the head's, which is the same for all
    /// methods, is not counted.
    pub fn state_bytes(&self) -> usize {
        let adapters = self
            .optimizer
            .adapters()
            .iter()
            .map(|slot| slot.state.bytes());
        let params = self.optimizer.params().iter();
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

    /// The part of the rows that the network classifies correctly, in [0, 1].
    pub fn accuracy(&self, data: &Dataset) -> Result<f64, Error> {
        self.network()?.accuracy(data)
    }
}

fn borrow_pair<'g>(
    pair: &crate::adapted::Pair,
    gradients: &'g GradStore,
) -> Result<[Borrowed<'g>; 2], Error> {
    Ok([pair.a.gradient(gradients)?, pair.b.gradient(gradients)?])
}
