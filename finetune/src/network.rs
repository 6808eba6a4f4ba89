//! The network: linear layers with GELU between them. Hidden layers are called `layers.0`,
//! `layers.1`, ..., the last one `head`.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use candle_core::{Module, Tensor};
use candle_nn::{Linear, loss::cross_entropy};
use lora_pro_candle::PeftAdapter;
use lora_pro_candle::bridge::{candle_error, from_data, to_data};
use lora_pro_core::{Error, TensorData, encode_tensors, read_tensors, write_atomically};

use crate::data::Dataset;

/// A network without trained parts: frozen, or merged for use.
#[derive(Clone, Debug)]
pub struct Network {
    /// The layers; the last is the head. Weights are m x n (out x in), biases m.
    pub layers: Vec<Linear>,
}

/// Runs `layers` one after another with GELU between them: N x inputs to N x classes.
pub(crate) fn forward<'l, L: Module + 'l>(
    layers: impl IntoIterator<Item = &'l L>,
    head: &impl Module,
    input: &Tensor,
) -> candle_core::Result<Tensor> {
    let mut hidden = input.clone();
    for layer in layers {
        hidden = layer.forward(&hidden)?.gelu_erf()?;
    }
    head.forward(&hidden)
}

impl Network {
    /// Logits, N x classes, of features, N x inputs.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, Error> {
        let (head, hidden) = self.parts()?;
        forward(hidden, head, input).map_err(candle_error)
    }

    /// The part of the rows that it classifies correctly, in [0, 1].
    pub fn accuracy(&self, data: &Dataset) -> Result<f64, Error> {
        let right = |logits: Tensor| {
            let hits = logits.argmax(1)?.eq(&data.labels)?;
            hits.to_dtype(candle_core::DType::F64)?
                .mean_all()?
                .to_scalar()
        };
        right(self.forward(&data.features)?).map_err(candle_error)
    }

    /// Mean cross-entropy on the rows.
    pub fn loss(&self, data: &Dataset) -> Result<f64, Error> {
        let loss = cross_entropy(&self.forward(&data.features)?, &data.labels);
        loss.and_then(|loss| loss.to_scalar::<f32>())
            .map(f64::from)
            .map_err(candle_error)
    }

    /// Writes a plain safetensors file, `<layer>.weight` and `<layer>.bias`.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut tensors = BTreeMap::new();
        self.write("", &mut tensors)?;
        let bytes = encode_tensors(&tensors, HashMap::new());
        write_atomically(path, &bytes.map_err(|reason| Error::file(path, reason))?)
    }

    /// The network that [`Network::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|error| Error::file(path, error))?;
        let tensors = read_tensors(&bytes).map_err(|error| Error::file(path, error))?;
        Self::read("", &tensors).map_err(|reason| Error::file(path, reason))
    }

    /// The network with an adapter merged, and with the modules that were trained as a whole.
    /// Rejects an adapter that does not fit a layer, naming it.
    pub fn with_adapter(&self, adapter: &PeftAdapter) -> Result<Self, Error> {
        let layers = self.layers.iter().enumerate();
        let merged = layers.map(|(index, layer)| adapter.merge(&self.layer_name(index), layer));
        Ok(Network {
            layers: merged.collect::<Result<_, _>>()?,
        })
    }

    /// The name of layer `index`.
    pub fn layer_name(&self, index: usize) -> String {
        if index + 1 == self.layers.len() {
            "head".into()
        } else {
            format!("layers.{index}")
        }
    }

    /// The head and the hidden layers.
    pub(crate) fn parts(&self) -> Result<(&Linear, &[Linear]), Error> {
        let empty = || Error::invalid("the network", "layers", 0, "at least 1");
        self.layers.split_last().ok_or_else(empty)
    }

    /// Adds its tensors, `<prefix><layer>.weight` and `.bias`.
    pub(crate) fn write(
        &self,
        prefix: &str,
        tensors: &mut BTreeMap<String, TensorData>,
    ) -> Result<(), Error> {
        for (index, layer) in self.layers.iter().enumerate() {
            let name = self.layer_name(index);
            tensors.insert(format!("{prefix}{name}.weight"), to_data(layer.weight())?);
            if let Some(bias) = layer.bias() {
                tensors.insert(format!("{prefix}{name}.bias"), to_data(bias)?);
            }
        }
        Ok(())
    }

    /// What [`Network::write`] wrote; every layer has a bias. The reason of a refusal is for people.
    pub(crate) fn read(
        prefix: &str,
        tensors: &BTreeMap<String, TensorData>,
    ) -> Result<Self, String> {
        let read = |name: String| {
            let data = tensors
                .get(&name)
                .ok_or_else(|| format!("tensor `{name}` is missing"))?;
            from_data(data).map_err(|error| format!("tensor `{name}`: {error}"))
        };
        let layer = |name: &str| {
            let weight = read(format!("{prefix}{name}.weight"))?;
            Ok(Linear::new(
                weight,
                Some(read(format!("{prefix}{name}.bias"))?),
            ))
        };
        let hidden =
            |index: &usize| tensors.contains_key(&format!("{prefix}layers.{index}.weight"));
        let hidden = (0..)
            .take_while(hidden)
            .map(|index| layer(&format!("layers.{index}")));
        let layers = hidden
            .chain([layer("head")])
            .collect::<Result<_, String>>()?;
        Ok(Network { layers })
    }
}
