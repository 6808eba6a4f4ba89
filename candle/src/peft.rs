//! Adapter files as PEFT reads and writes them: `adapter_config.json` and
//! `adapter_model.safetensors`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use candle_core::Tensor;
use candle_nn::Linear;
use lora_pro_core::{
    AdapterSpec, Error, Scale, TensorData, encode_tensors, read_tensors, write_atomically,
};
use serde::{Deserialize, Serialize};

use crate::bridge::{candle_error, from_data, to_data};
use crate::lora_linear::LoraLinear;
use crate::targets::{TargetModules, Targets};

/// The file with the configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file with the tensors.
pub const MODEL_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before a module's name.
const PREFIX: &str = "base_model.model.";

/// PEFT's `LoraConfig`, as far as it concerns linear layers. Fields that are not listed are ignored
/// when read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// DoRA's magnitudes: false. Such a file is not LoRA's, and is rejected.
    #[serde(default)]
    pub use_dora: bool,
    /// The modules with adapters, with ranks and alphas of their own, and those trained as a whole.
    #[serde(flatten)]
    pub targets: Targets,
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

impl PeftConfig {
    /// The scale of `module`'s adapter. Rejects a regular expression that cannot be read.
    pub fn scale(&self, module: &str) -> Result<Scale, Error> {
        let alpha = self.targets.alpha(module)?.unwrap_or(self.lora_alpha);
        Ok(match self.use_rslora {
            true => Scale::RsLora(alpha),
            false => Scale::Alpha(alpha),
        })
    }

    /// The rank of `module`'s adapter. Rejects a regular expression that cannot be read.
    pub fn rank(&self, module: &str) -> Result<usize, Error> {
        Ok(self.targets.rank(module)?.unwrap_or(self.r))
    }

    /// Rejects what would be another network than the one that was trained.
    fn validate(&self) -> Result<(), String> {
        let needed = |field: &str, value: &str, expected: &str| {
            Err(format!("{field} is `{value}`, but it must be `{expected}`"))
        };
        match self {
            _ if self.peft_type != "LORA" => needed("peft_type", &self.peft_type, "LORA"),
            _ if self.bias != "none" => needed("bias", &self.bias, "none"),
            _ if self.use_dora => needed("use_dora", "true", "false"),
            _ if self.fan_in_fan_out => needed("fan_in_fan_out", "true", "false"),
            _ => Ok(()),
        }
    }
}

/// An adapter in memory: its configuration and the tensors under PEFT's names.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PeftAdapter {
    /// `adapter_config.json`.
    pub config: PeftConfig,
    /// `adapter_model.safetensors`.
    pub tensors: BTreeMap<String, TensorData>,
}

impl PeftAdapter {
    /// The adapters of some layers; `base_name` tells where the frozen network comes from.
    ///
    /// Rejects an empty list. Ranks and scales may differ from layer to layer.
    pub fn new<'l>(
        base_name: &str,
        layers: impl IntoIterator<Item = &'l LoraLinear>,
    ) -> Result<Self, Error> {
        let layers: Vec<&LoraLinear> = layers.into_iter().collect();
        let specs: Vec<&AdapterSpec> = layers.iter().map(|layer| layer.spec()).collect();
        let mut adapter = PeftAdapter {
            config: config(base_name, &specs)?,
            tensors: BTreeMap::new(),
        };
        for layer in layers {
            let module = &layer.spec().name;
            adapter.insert(module, "lora_A.weight", layer.a())?;
            adapter.insert(module, "lora_B.weight", layer.b())?;
        }
        Ok(adapter)
    }

    /// With a module that was trained as a whole, such as the head.
    pub fn module(mut self, name: &str, layer: &Linear) -> Result<Self, Error> {
        self.insert(name, "weight", layer.weight())?;
        if let Some(bias) = layer.bias() {
            self.insert(name, "bias", bias)?;
        }
        let saved = self.config.targets.modules_to_save.get_or_insert_default();
        saved.push(name.into());
        Ok(self)
    }

    /// With one tensor of a module that was trained without an adapter: `head`, `bias`.
    fn insert(&mut self, module: &str, part: &str, tensor: &Tensor) -> Result<(), Error> {
        let name = format!("{PREFIX}{module}.{part}");
        self.tensors.insert(name, to_data(tensor)?);
        Ok(())
    }

    /// Writes both files into `folder`, which is made if need be.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), Error> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        let path = folder.join(MODEL_FILE);
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let bytes = encode_tensors(&self.tensors, metadata);
        write_atomically(&path, &bytes.map_err(|error| Error::file(&path, error))?)?;
        let path = folder.join(CONFIG_FILE);
        let text = serde_json::to_vec_pretty(&self.config);
        write_atomically(&path, &text.map_err(|error| Error::file(&path, error))?)
    }

    /// Reads both files of `folder`. Rejects what is damaged or not a LoRA adapter of linear layers.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let path = folder.as_ref().join(CONFIG_FILE);
        let text = fs::read(&path).map_err(|error| Error::file(&path, error))?;
        let config: PeftConfig =
            serde_json::from_slice(&text).map_err(|error| Error::file(&path, error))?;
        config
            .validate()
            .map_err(|reason| Error::file(&path, reason))?;
        let path = folder.as_ref().join(MODEL_FILE);
        let bytes = fs::read(&path).map_err(|error| Error::file(&path, error))?;
        let tensors = read_tensors(&bytes).map_err(|error| Error::file(&path, error))?;
        Ok(PeftAdapter { config, tensors })
    }

    /// The modules that have adapters, by the tensors that are there.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        let names = self.tensors.keys();
        names.filter_map(|name| name.strip_prefix(PREFIX)?.strip_suffix(".lora_A.weight"))
    }

    /// The layer of `module` with its adapter on `base`: to go on training, or to be merged. `None`
    /// where the module has no adapter.
    ///
    /// Rejects an adapter that does not fit the layer.
    pub fn layer(&self, module: &str, base: &Linear) -> Result<Option<LoraLinear>, Error> {
        if !self.modules().any(|name| name == module) {
            return Ok(None);
        }
        let (m, n) = base.weight().dims2().map_err(candle_error)?;
        let r = self.config.rank(module)?;
        let spec = AdapterSpec::new(module, m, n, r).scale(self.config.scale(module)?);
        let a = self.tensor(module, "lora_A.weight", &spec.a_shape())?;
        let b = self.tensor(module, "lora_B.weight", &spec.b_shape())?;
        LoraLinear::with_factors(spec, base.clone(), &a, &b).map(Some)
    }

    /// `layer` as the adapter has it: with its adapter merged, replaced where it was trained as a
    /// whole, or else as it is.
    pub fn merge(&self, module: &str, layer: &Linear) -> Result<Linear, Error> {
        if let Some(adapted) = self.layer(module, layer)? {
            return adapted.merged().map_err(candle_error);
        }
        let saved = self
            .config
            .targets
            .modules_to_save
            .as_deref()
            .unwrap_or_default();
        if !saved.iter().any(|name| name == module) {
            return Ok(layer.clone());
        }
        let weight = self.tensor(module, "weight", layer.weight().dims())?;
        let bias = layer
            .bias()
            .map(|bias| self.tensor(module, "bias", bias.dims()));
        Ok(Linear::new(weight, bias.transpose()?))
    }

    fn tensor(&self, module: &str, part: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let name = format!("{PREFIX}{module}.{part}");
        let data = self.tensors.get(&name);
        let data =
            data.ok_or_else(|| Error::file(MODEL_FILE, format!("tensor `{name}` is missing")))?;
        if data.shape != shape {
            let found = &data.shape;
            let reason = format!("tensor `{name}` is {found:?}, but {shape:?} is needed");
            return Err(Error::file(MODEL_FILE, reason));
        }
        from_data(data)
    }
}

/// The configuration of these adapters. The first gives the common rank and alpha; others that
/// differ get an entry of their own.
fn config(base_name: &str, specs: &[&AdapterSpec]) -> Result<PeftConfig, Error> {
    let Some(first) = specs.first() else {
        let expected = "at least one layer with an adapter";
        return Err(Error::invalid("a PEFT adapter", "layers", "none", expected));
    };
    let use_rslora = specs
        .iter()
        .all(|spec| matches!(spec.scale, Scale::RsLora(_)));
    let alpha = |spec: &AdapterSpec| match spec.scale {
        Scale::RsLora(alpha) if use_rslora => alpha,
        Scale::Alpha(alpha) => alpha,
        // PEFT knows no s of its own; alpha = s r gives it.
        _ => spec.s() * spec.r as f64,
    };
    // PEFT's keys also fit the end of a name; `^` makes them fit this module alone.
    let others = || specs.iter().map(|spec| (format!("^{}", spec.name), *spec));
    let ranks = others().filter(|(_, spec)| spec.r != first.r);
    let alphas = others().filter(|(_, spec)| alpha(spec) != alpha(first));
    let names = specs.iter().map(|spec| spec.name.clone()).collect();
    let mut targets = Targets::new(TargetModules::Names(names));
    targets.rank_pattern = ranks.map(|(name, spec)| (name, spec.r)).collect();
    targets.alpha_pattern = alphas.map(|(name, spec)| (name, alpha(spec))).collect();
    Ok(PeftConfig {
        peft_type: "LORA".into(),
        task_type: None,
        base_model_name_or_path: Some(base_name.into()),
        r: first.r,
        lora_alpha: alpha(first),
        use_rslora,
        use_dora: false,
        targets,
        bias: none(),
        lora_dropout: 0.0,
        fan_in_fan_out: false,
        init_lora_weights: true.into(),
        inference_mode: true,
    })
}
