//! Adapter files as PEFT reads and writes them: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! The trained head is in the file too, as `modules_to_save` puts it there.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use candle_nn::Linear;
use lora_pro_core::{Error, Scale, TensorData, encode_tensors, read_tensors, write_atomically};
use serde::{Deserialize, Serialize};

use crate::{
    LoraLinear, Network, Trainer, Trains,
    bridge::{candle, from_data, to_data},
};

/// The file with the configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file with the tensors.
pub const MODEL_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before a module's name.
const PREFIX: &str = "base_model.model.";

/// PEFT's `LoraConfig`, as far as it concerns the layers here. Fields that are not listed are
/// ignored when read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeftConfig {
    /// Always `LORA`.
    pub peft_type: String,
    /// What kind of task, for PEFT's model classes; none.
    #[serde(default)]
    pub task_type: Option<String>,
    /// Where the frozen network comes from.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// Rank r of modules without an entry in `rank_pattern`.
    pub r: usize,
    /// Alpha of modules without an entry in `alpha_pattern`.
    pub lora_alpha: f64,
    /// s = alpha / sqrt(r) instead of alpha / r.
    #[serde(default)]
    pub use_rslora: bool,
    /// Ranks of single modules.
    #[serde(default)]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single modules.
    #[serde(default)]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// The modules with adapters.
    pub target_modules: Vec<String>,
    /// The modules trained without an adapter: the head.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    /// Which biases are trained: `none`.
    #[serde(default = "none")]
    pub bias: String,
    /// Dropout before A: 0.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Whether weights are stored n x m: false.
    #[serde(default)]
    pub fan_in_fan_out: bool,
    /// How A and B start: PEFT's default.
    #[serde(default)]
    pub init_lora_weights: serde_json::Value,
    /// True in a file that is made for use.
    #[serde(default)]
    pub inference_mode: bool,
}

fn none() -> String {
    "none".into()
}

/// An adapter in memory: its configuration and the tensors under PEFT's names.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftAdapter {
    /// `adapter_config.json`.
    pub config: PeftConfig,
    /// `adapter_model.safetensors`.
    pub tensors: BTreeMap<String, TensorData>,
}

impl PeftConfig {
    /// The scale of `module`'s adapter.
    fn scale(&self, module: &str) -> Scale {
        let alpha = *self.alpha_pattern.get(module).unwrap_or(&self.lora_alpha);
        if self.use_rslora {
            Scale::RsLora(alpha)
        } else {
            Scale::Alpha(alpha)
        }
    }

    fn rank(&self, module: &str) -> usize {
        *self.rank_pattern.get(module).unwrap_or(&self.r)
    }
}

impl Trainer {
    /// The adapter as trained so far; `base_name` tells where the frozen network comes from.
    ///
    /// Refuses a run that trains no adapters.
    pub fn peft(&self, base_name: &str) -> Result<PeftAdapter, Error> {
        let Trains::Adapters { rank, scale } = self.run.trains else {
            return Err(Error::invalid(
                "the run",
                "method",
                "full fine-tuning",
                "one with adapters",
            ));
        };
        let mut tensors = BTreeMap::new();
        let mut add = |module: &str, part: &str, tensor| {
            to_data(tensor).map(|data| tensors.insert(format!("{PREFIX}{module}.{part}"), data))
        };
        for pair in &self.adapted.adapters {
            add(&pair.spec.name, "lora_A.weight", pair.a.var.as_tensor())?;
            add(&pair.spec.name, "lora_B.weight", pair.b.var.as_tensor())?;
        }
        for param in &self.adapted.params {
            let Some((module, part)) = param.spec.name.rsplit_once('.') else {
                continue;
            };
            add(module, part, param.value.var.as_tensor())?;
        }
        let targets = self
            .adapted
            .adapters
            .iter()
            .map(|pair| pair.spec.name.clone())
            .collect();
        Ok(PeftAdapter {
            config: config(base_name, rank, scale, targets),
            tensors,
        })
    }
}

fn config(base_name: &str, r: usize, scale: Scale, target_modules: Vec<String>) -> PeftConfig {
    let (lora_alpha, use_rslora) = match scale {
        Scale::Alpha(alpha) => (alpha, false),
        Scale::RsLora(alpha) => (alpha, true),
        // PEFT knows no s of its own; alpha = s r gives it.
        Scale::Explicit(s) => (s * r as f64, false),
    };
    PeftConfig {
        peft_type: "LORA".into(),
        task_type: None,
        base_model_name_or_path: Some(base_name.into()),
        r,
        lora_alpha,
        use_rslora,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
        target_modules,
        modules_to_save: Some(vec!["head".into()]),
        bias: none(),
        lora_dropout: 0.0,
        fan_in_fan_out: false,
        init_lora_weights: true.into(),
        inference_mode: true,
    }
}

impl PeftAdapter {
    /// Writes both files into `folder`, which is made if need be.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        let path = folder.join(MODEL_FILE);
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let bytes = encode_tensors(&self.tensors, metadata);
        write_atomically(&path, &bytes.map_err(|reason| Error::file(&path, reason))?)?;
        let path = folder.join(CONFIG_FILE);
        let text = serde_json::to_vec_pretty(&self.config);
        write_atomically(&path, &text.map_err(|error| Error::file(&path, error))?)
    }

    /// Reads both files of `folder`. Refuses what is damaged or not a LoRA adapter.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(CONFIG_FILE);
        let text = fs::read(&path).map_err(|error| Error::file(&path, error))?;
        let config: PeftConfig =
            serde_json::from_slice(&text).map_err(|error| Error::file(&path, error))?;
        if config.peft_type != "LORA" {
            let reason = format!("peft_type is `{}`, but it must be `LORA`", config.peft_type);
            return Err(Error::file(&path, reason));
        }
        let path = folder.join(MODEL_FILE);
        let bytes = fs::read(&path).map_err(|error| Error::file(&path, error))?;
        let tensors = read_tensors(&bytes).map_err(|reason| Error::file(&path, reason))?;
        Ok(PeftAdapter { config, tensors })
    }

    /// The network with this adapter merged. Refuses adapters that do not fit a layer, naming it.
    pub fn merge(&self, base: &Network) -> Result<Network, Error> {
        let layer = |(index, layer): (usize, &Linear)| {
            let name = base.layer_name(index);
            match self.config.target_modules.contains(&name) {
                true => self.adapt(&name, layer),
                false => self.replace(&name, layer),
            }
        };
        let layers = base
            .layers
            .iter()
            .enumerate()
            .map(layer)
            .collect::<Result<_, _>>()?;
        Ok(Network { layers })
    }

    fn adapt(&self, module: &str, layer: &Linear) -> Result<Linear, Error> {
        let (m, n) = layer.weight().dims2().map_err(candle)?;
        let r = self.config.rank(module);
        let a = self.tensor(module, "lora_A.weight", &[r, n])?;
        let b = self.tensor(module, "lora_B.weight", &[m, r])?;
        let s = self.config.scale(module).value(r);
        LoraLinear {
            base: layer.clone(),
            a,
            b,
            s,
        }
        .merged()
        .map_err(candle)
    }

    /// A module that was trained as a whole, if it was; else `layer` as it is.
    fn replace(&self, module: &str, layer: &Linear) -> Result<Linear, Error> {
        let saved = self.config.modules_to_save.as_deref().unwrap_or_default();
        if !saved.iter().any(|name| name == module) {
            return Ok(layer.clone());
        }
        let weight = self.tensor(module, "weight", layer.weight().dims())?;
        let bias = layer
            .bias()
            .map(|bias| self.tensor(module, "bias", bias.dims()));
        Ok(Linear::new(weight, bias.transpose()?))
    }

    fn tensor(
        &self,
        module: &str,
        part: &str,
        shape: &[usize],
    ) -> Result<candle_core::Tensor, Error> {
        let name = format!("{PREFIX}{module}.{part}");
        let refuse = |reason: String| Error::file(MODEL_FILE, reason);
        let data = self.tensors.get(&name);
        let data = data.ok_or_else(|| refuse(format!("tensor `{name}` is missing")))?;
        if data.shape != shape {
            let found = &data.shape;
            return Err(refuse(format!(
                "tensor `{name}` is {found:?}, but {shape:?} is needed"
            )));
        }
        from_data(&name, data).map_err(refuse)
    }
}
