//! The network in training: frozen layers, adapters, and the variables that are trained.

use candle_core::{Module, Tensor, Var};
use candle_nn::Linear;
use lora_pro_candle::bridge::{candle_error, matrix_shape};
use lora_pro_candle::{LoraLinear, LoraPro};
use lora_pro_core::{AdapterSpec, Error, ParamSpec, Scale};
use rand_chacha::ChaCha8Rng;

use crate::network::{Network, forward};
use crate::run::{RunConfig, START, Trainable, random, uniform};

/// The group of the head's parameters, where the configuration has one.
const HEAD: &str = "head";

/// A hidden layer in training.
pub(crate) enum Layer {
    Adapted(LoraLinear),
    Plain(Linear),
}

impl Module for Layer {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Layer::Adapted(layer) => layer.forward(x),
            Layer::Plain(layer) => layer.forward(x),
        }
    }
}

/// The network in training.
pub(crate) struct Adapted {
    pub hidden: Vec<Layer>,
    pub head: Linear,
    params: Vec<(ParamSpec, Var)>,
}

impl Adapted {
    /// The frozen network with what `run` trains at its start: A uniform in +-1 / sqrt(n)
    /// (Kaiming, as PEFT), B zero, all else as it is.
    pub fn new(base: &Network, run: &RunConfig) -> Result<Self, Error> {
        let (head, hidden) = base.parts()?;
        let mut adapted = Adapted {
            hidden: Vec::new(),
            head: head.clone(),
            params: Vec::new(),
        };
        let mut random = random(run.seed, START);
        for (index, layer) in hidden.iter().enumerate() {
            let name = base.layer_name(index);
            let layer = match run.trainable {
                Trainable::Adapters { rank, scale } => {
                    Layer::Adapted(adapter(&name, layer, rank, scale, &mut random)?)
                }
                Trainable::Weights => Layer::Plain(adapted.add_linear(layer, &name, false, None)?),
                Trainable::Everything => {
                    Layer::Plain(adapted.add_linear(layer, &name, true, None)?)
                }
            };
            adapted.hidden.push(layer);
        }
        let group = run.config.groups.contains_key(HEAD).then_some(HEAD);
        adapted.head = adapted.add_linear(head, HEAD, true, group)?;
        Ok(adapted)
    }

    /// Registers everything that is trained.
    pub fn register(&self, optimizer: &mut LoraPro) -> Result<(), Error> {
        for layer in self.adapters() {
            optimizer.add_layer(layer)?;
        }
        for (spec, var) in &self.params {
            optimizer.add_param(spec.clone(), var)?;
        }
        Ok(())
    }

    /// The hidden layers that have adapters.
    pub fn adapters(&self) -> impl Iterator<Item = &LoraLinear> {
        self.hidden.iter().filter_map(|layer| match layer {
            Layer::Adapted(layer) => Some(layer),
            Layer::Plain(_) => None,
        })
    }

    /// Logits, N x classes.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        forward(&self.hidden, &self.head, x)
    }

    /// The plain network with every adapter merged, free of variables.
    pub fn merged(&self) -> Result<Network, Error> {
        let plain = |layer: &Layer| match layer {
            Layer::Adapted(layer) => layer.merged(),
            Layer::Plain(layer) => copy(layer),
        };
        let hidden = self.hidden.iter().map(plain);
        let layers = hidden
            .chain([copy(&self.head)])
            .collect::<candle_core::Result<_>>();
        Ok(Network {
            layers: layers.map_err(candle_error)?,
        })
    }

    /// Whether all trained numbers are finite.
    pub fn is_finite(&self) -> candle_core::Result<bool> {
        let adapters = self.adapters().flat_map(|layer| [layer.a(), layer.b()]);
        let mut vars = adapters.chain(self.params.iter().map(|(_, var)| var));
        vars.try_fold(true, |finite, var| {
            let values = var.flatten_all()?.to_vec1::<f32>()?;
            Ok(finite && values.iter().all(|x| x.is_finite()))
        })
    }

    fn add_linear(
        &mut self,
        layer: &Linear,
        name: &str,
        with_bias: bool,
        group: Option<&str>,
    ) -> Result<Linear, Error> {
        let weight = self.add_param(layer.weight(), format!("{name}.weight"), group)?;
        let bias = match layer.bias() {
            Some(bias) if with_bias => Some(self.add_param(bias, format!("{name}.bias"), group)?),
            bias => bias.cloned(),
        };
        Ok(Linear::new(weight, bias))
    }

    fn add_param(
        &mut self,
        start: &Tensor,
        name: String,
        group: Option<&str>,
    ) -> Result<Tensor, Error> {
        let var = Var::from_tensor(start).map_err(candle_error)?;
        let [rows, cols] = matrix_shape(var.dims());
        let spec = ParamSpec::new(name, rows, cols);
        let spec = match group {
            Some(group) => spec.group(group),
            None => spec,
        };
        let tensor = var.as_tensor().clone();
        self.params.push((spec, var));
        Ok(tensor)
    }
}

/// `layer` with an adapter at its start; a rank that does not fit is rejected.
fn adapter(
    name: &str,
    layer: &Linear,
    r: usize,
    scale: Scale,
    random: &mut ChaCha8Rng,
) -> Result<LoraLinear, Error> {
    let (m, n) = layer.weight().dims2().map_err(candle_error)?;
    let spec = AdapterSpec::new(name, m, n, r).scale(scale);
    spec.validate()?;
    let bound = (n as f32).sqrt().recip();
    let device = layer.weight().device();
    let a = Tensor::from_vec(uniform(random, r * n, bound), (r, n), device);
    let (a, b) = a
        .and_then(|a| Ok((a, Tensor::zeros((m, r), candle_core::DType::F32, device)?)))
        .map_err(candle_error)?;
    LoraLinear::with_factors(spec, layer.clone(), &a, &b)
}

/// The same numbers in memory of their own, without variables.
fn copy(layer: &Linear) -> candle_core::Result<Linear> {
    let weight = layer.weight().copy()?.detach();
    let bias = layer
        .bias()
        .map(|bias| Ok::<_, candle_core::Error>(bias.copy()?.detach()));
    Ok(Linear::new(weight, bias.transpose()?))
}
