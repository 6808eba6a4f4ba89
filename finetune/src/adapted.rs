//! The network in training: frozen layers, adapters, and the tensors that are trained.

use candle_core::{Device, Module, Tensor};
use candle_nn::Linear;
use lora_pro_core::{AdapterSpec, Error, ParamSpec};

use crate::{
    LoraLinear, Network, Run, Trains,
    bridge::{Trained, candle},
    network::forward,
    run::{START, random, uniform},
};

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

/// A trained pair.
pub(crate) struct Pair {
    pub spec: AdapterSpec,
    pub a: Trained,
    pub b: Trained,
}

/// A trained tensor without a pair.
pub(crate) struct Param {
    pub spec: ParamSpec,
    pub value: Trained,
}

/// The network in training. The layers hold the variables of `adapters` and `params`, in this order:
/// pair k belongs to hidden layer k.
pub(crate) struct Adapted {
    pub hidden: Vec<Layer>,
    pub head: Linear,
    pub adapters: Vec<Pair>,
    pub params: Vec<Param>,
}

impl Adapted {
    /// The frozen network with what `run` trains at its start: A uniform in +-1 / sqrt(n)
    /// (Kaiming, as PEFT), B zero, all else as it is.
    pub fn new(base: &Network, run: &Run) -> Result<Self, Error> {
        let (head, hidden) = base.parts()?;
        let mut adapted = Adapted {
            hidden: Vec::new(),
            head: head.clone(),
            adapters: Vec::new(),
            params: Vec::new(),
        };
        let mut random = random(run.seed, START);
        for (index, layer) in hidden.iter().enumerate() {
            let name = base.layer_name(index);
            let layer = match run.trains {
                Trains::Adapters { rank, scale } => {
                    let spec = adapter_spec(&name, layer, rank, scale)?;
                    let bound = (spec.n as f32).sqrt().recip();
                    let a = uniform(&mut random, rank * spec.n, bound);
                    Layer::Adapted(adapted.add_pair(layer, spec, a)?)
                }
                Trains::Weights => Layer::Plain(adapted.add_linear(layer, &name, false, None)?),
                Trains::Everything => Layer::Plain(adapted.add_linear(layer, &name, true, None)?),
            };
            adapted.hidden.push(layer);
        }
        let group = run.config.groups.contains_key(HEAD).then_some(HEAD);
        adapted.head = adapted.add_linear(head, HEAD, true, group)?;
        Ok(adapted)
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
            layers: layers.map_err(candle)?,
        })
    }

    /// Copies all stepped host memory into candle's variables; false if a number is not finite.
    pub fn publish(&self) -> Result<bool, Error> {
        let adapters = self.adapters.iter().flat_map(|pair| [&pair.a, &pair.b]);
        let params = self.params.iter().map(|param| &param.value);
        adapters
            .chain(params)
            .try_fold(true, |finite, trained| Ok(trained.publish()? && finite))
    }

    /// All trained tensors with their names, to be overwritten from a checkpoint.
    pub fn trained_mut(&mut self) -> impl Iterator<Item = (String, &mut Trained)> {
        let adapters = self.adapters.iter_mut().flat_map(|Pair { spec, a, b }| {
            [
                (format!("{}.lora_A", spec.name), a),
                (format!("{}.lora_B", spec.name), b),
            ]
        });
        let params = self
            .params
            .iter_mut()
            .map(|param| (param.spec.name.clone(), &mut param.value));
        adapters.chain(params)
    }

    fn add_pair(
        &mut self,
        base: &Linear,
        spec: AdapterSpec,
        a: Vec<f32>,
    ) -> Result<LoraLinear, Error> {
        let a = Tensor::from_vec(a, (spec.r, spec.n), &Device::Cpu).map_err(candle)?;
        let b = Tensor::zeros((spec.m, spec.r), a.dtype(), &Device::Cpu).map_err(candle)?;
        let (s, a, b) = (spec.s(), Trained::new(&a)?, Trained::new(&b)?);
        let (base, variable) = (base.clone(), |trained: &Trained| {
            trained.var.as_tensor().clone()
        });
        let layer = LoraLinear {
            base,
            a: variable(&a),
            b: variable(&b),
            s,
        };
        self.adapters.push(Pair { spec, a, b });
        Ok(layer)
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
        let value = Trained::new(start)?;
        let [rows, cols] = value.host.shape();
        let spec = {
            let mut spec = ParamSpec::new(name, rows, cols);
            spec.group = group.map(Into::into);
            spec
        };
        let variable = value.var.as_tensor().clone();
        self.params.push(Param { spec, value });
        Ok(variable)
    }
}

/// The adapter on `layer`'s weight; a rank that does not fit is refused.
fn adapter_spec(
    name: &str,
    layer: &Linear,
    r: usize,
    scale: lora_pro_core::Scale,
) -> Result<AdapterSpec, Error> {
    let (m, n) = layer.weight().dims2().map_err(candle)?;
    let spec = AdapterSpec::new(name, m, n, r).scale(scale);
    spec.validate()?;
    Ok(spec)
}

/// The same numbers in memory of their own, without variables.
fn copy(layer: &Linear) -> candle_core::Result<Linear> {
    let weight = layer.weight().copy()?.detach();
    let bias = layer
        .bias()
        .map(|bias| Ok::<_, candle_core::Error>(bias.copy()?.detach()));
    Ok(Linear::new(weight, bias.transpose()?))
}
