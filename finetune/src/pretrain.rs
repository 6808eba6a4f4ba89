//! How the frozen network is made: ordinary AdamW on all its weights and biases.

use candle_core::{Device, Tensor};
use candle_nn::Linear;
use lora_pro_candle::bridge::candle_error;
use lora_pro_core::{Backend, Config, Error, Method, Preset, Schedule};

use crate::data::Dataset;
use crate::network::Network;
use crate::run::{RunConfig, START, Trainable, random, uniform};
use crate::setup::Experiment;
use crate::trainer::Trainer;

/// A network trained on `data`, the same bits every time.
pub fn pretrain(
    experiment: &Experiment,
    data: &Dataset,
    backend: Box<dyn Backend>,
) -> Result<Network, Error> {
    let how = &experiment.pretraining;
    let hyper = Preset::Paper.hyper().method(Method::Lora).lr(how.lr);
    let schedule = Schedule::Linear {
        warmup: 0,
        total: how.steps as u64,
    };
    let run = RunConfig {
        trainable: Trainable::Everything,
        config: Config::from(hyper).schedule(schedule),
        seed: how.seed,
        batch: how.batch.min(data.len()),
        steps: how.steps,
    };
    let start = start(&experiment.hidden, data, how.seed).map_err(candle_error)?;
    let mut trainer = Trainer::new(&start, data, run, backend)?;
    while !trainer.finished() {
        trainer.step()?;
    }
    match trainer.diverged() {
        true => Err(Error::invalid(
            "pre-training",
            "loss",
            "not finite",
            "finite",
        )),
        false => trainer.network(),
    }
}

/// Weights uniform in +-sqrt(6 / n) (He), biases zero.
fn start(hidden: &[usize], data: &Dataset, seed: u64) -> candle_core::Result<Network> {
    let mut random = random(seed, START);
    let ends = hidden.iter().chain([&data.classes]);
    let mut inputs = data.inputs();
    let mut layers = Vec::new();
    for &outputs in ends {
        let bound = (6.0 / inputs as f32).sqrt();
        let weight = uniform(&mut random, outputs * inputs, bound);
        let weight = Tensor::from_vec(weight, (outputs, inputs), &Device::Cpu)?;
        let bias = Tensor::zeros(outputs, weight.dtype(), &Device::Cpu)?;
        layers.push(Linear::new(weight, Some(bias)));
        inputs = outputs;
    }
    Ok(Network { layers })
}
