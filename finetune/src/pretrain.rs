//! How the frozen network is made: ordinary AdamW on all its weights and biases.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use lora_pro_candle::bridge::candle_error;
use lora_pro_core::{Backend, Config, Error, Method, Preset, Schedule};
use lora_pro_models::{Mlp, Model, Parameters};

use crate::data::Dataset;
use crate::examples::Examples;
use crate::network::Network;
use crate::run::{RunConfig, START, Trainable, random, uniform};
use crate::setup::Pretraining;
use crate::trainer::Trainer;

/// A network trained on `data`, the same bits every time; `hidden` are the widths of its hidden
/// layers.
pub fn pretrain(
    hidden: &[usize],
    how: &Pretraining,
    data: &Dataset,
    backend: Box<dyn Backend>,
) -> Result<Network, Error> {
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
        micro_batches: 1,
        steps: how.steps,
        lora_dropout: 0.0,
        targets: Default::default(),
    };
    let start = start(hidden, data, how.seed).map_err(candle_error)?;
    let mut trainer = Trainer::new(&start, Arc::new(data.clone()), run, backend)?;
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
    let model = Mlp {
        hidden: hidden.len(),
    };
    let modules = model
        .linear_modules()
        .into_iter()
        .chain(model.head().map(String::from));
    let ends = hidden.iter().chain([&data.classes]);
    let mut inputs = data.inputs();
    let mut tensors = BTreeMap::new();
    for (module, &outputs) in modules.zip(ends) {
        let bound = (6.0 / inputs as f32).sqrt();
        let weight = uniform(&mut random, outputs * inputs, bound);
        let weight = Tensor::from_vec(weight, (outputs, inputs), &Device::Cpu)?;
        let bias = Tensor::zeros(outputs, weight.dtype(), &Device::Cpu)?;
        tensors.insert(format!("{module}.weight"), weight);
        tensors.insert(format!("{module}.bias"), bias);
        inputs = outputs;
    }
    Ok(Network {
        model: Arc::new(model),
        parameters: Parameters::new(tensors),
    })
}
