//! Adapter files as PEFT reads and writes them: `adapter_config.json` and
//! `adapter_model.safetensors`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use candle_core::Tensor;
use candle_nn::Linear;
use lora_pro_core::{
    AdapterSpec, Error, TensorData, encode_tensors, read_tensors, write_atomically,
};

use crate::bridge::{candle_error, from_data, to_data};
use crate::lora_linear::LoraLinear;
use crate::peft_config::PeftConfig;
use crate::targets::few;

/// The file with the configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file with the tensors.
pub const MODEL_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before a module's name.
const PREFIX: &str = "base_model.model.";
/// What stands for A after a module's name, and what for B.
const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

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
            config: PeftConfig::new(base_name, &specs)?,
            tensors: BTreeMap::new(),
        };
        for layer in layers {
            let module = &layer.spec().name;
            adapter.insert(&format!("{module}{A}"), layer.a())?;
            adapter.insert(&format!("{module}{B}"), layer.b())?;
        }
        Ok(adapter)
    }

    /// With a tensor of a module that was trained as a whole, such as `classifier.weight`.
    ///
    /// Rejects a name that has no module in it.
    pub fn with_saved(mut self, name: &str, tensor: &Tensor) -> Result<Self, Error> {
        let Some((module, _)) = name.rsplit_once('.') else {
            let expected = "the name of a module, a dot and `weight` or `bias`";
            return Err(Error::invalid("a PEFT adapter", "tensor", name, expected));
        };
        let saved = self.config.targets.modules_to_save.get_or_insert_default();
        if !saved.iter().any(|one| one == module) {
            saved.push(module.into());
        }
        self.insert(name, tensor)?;
        Ok(self)
    }

    fn insert(&mut self, name: &str, tensor: &Tensor) -> Result<(), Error> {
        self.tensors
            .insert(format!("{PREFIX}{name}"), to_data(tensor)?);
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

    /// Reads both files of `folder`. Tensors of 16 bits become f32, as in PEFT.
    ///
    /// Rejects what is damaged, what is not a LoRA adapter of linear layers, an adapter for other
    /// weights than those of the original model (PiSSA's and the like), and tensors that the
    /// configuration does not ask for.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let path = folder.join(CONFIG_FILE);
        let text = fs::read(&path).map_err(|error| Error::file(&path, error))?;
        let config = PeftConfig::read(&text).map_err(|reason| Error::file(&path, reason))?;
        let path = folder.join(MODEL_FILE);
        if !path.exists() && folder.join("adapter_model.bin").exists() {
            let reason = "there is only adapter_model.bin, which is not read: save the adapter again \
                          with a newer PEFT";
            return Err(Error::file(&path, reason));
        }
        let bytes = fs::read(&path).map_err(|error| Error::file(&path, error))?;
        let tensors = read_tensors(&bytes).map_err(|error| Error::file(&path, error))?;
        let adapter = PeftAdapter { config, tensors };
        match adapter.strangers()?.as_slice() {
            [] => Ok(adapter),
            strangers => {
                let names = few(strangers);
                let reason = format!("{CONFIG_FILE} does not ask for these tensors: {names}");
                Err(Error::file(&path, reason))
            }
        }
    }

    /// The tensors that the configuration does not ask for.
    fn strangers(&self) -> Result<Vec<&str>, Error> {
        let modules: Vec<String> = self.modules().map(String::from).collect();
        let chosen = match modules.is_empty() {
            true => Vec::new(),
            false => self.config.targets.select(&modules, None)?,
        };
        let known = |name: &str| {
            let Some(name) = name.strip_prefix(PREFIX) else {
                return false;
            };
            match factor(name) {
                Some(module) => chosen.iter().any(|one| one == module),
                None => self.config.saves(name),
            }
        };
        let names = self.tensors.keys().map(String::as_str);
        Ok(names.filter(|name| !known(name)).collect())
    }

    /// The modules that have adapters, by the tensors that are there.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        let names = self.tensors.keys();
        names.filter_map(|name| name.strip_prefix(PREFIX)?.strip_suffix(A))
    }

    /// The tensors of modules that were trained as a whole, under their names in the model.
    pub fn saved(&self) -> impl Iterator<Item = (&str, &TensorData)> {
        let tensors = self.tensors.iter();
        tensors.filter_map(|(name, data)| {
            let name = name.strip_prefix(PREFIX)?;
            factor(name).is_none().then_some((name, data))
        })
    }

    /// The layers of [`PeftAdapter::modules`] with their adapters on what `base` gives for a module: to
    /// go on training, or to be merged.
    ///
    /// Rejects an adapter that does not fit the layer.
    pub fn layers(
        &self,
        base: impl Fn(&str) -> Result<Linear, Error>,
    ) -> Result<Vec<LoraLinear>, Error> {
        let patterns = self.config.targets.patterns()?;
        let layer = |module: &str| {
            let base = base(module)?;
            let (m, n) = base.weight().dims2().map_err(candle_error)?;
            let (r, scale) = self.config.rank_and_scale(module, &patterns)?;
            let spec = AdapterSpec::new(module, m, n, r).scale(scale);
            let a = self.factor(&format!("{module}{A}"), spec.a_shape())?;
            let b = self.factor(&format!("{module}{B}"), spec.b_shape())?;
            LoraLinear::with_factors(spec, base, &a, &b)
        };
        self.modules().map(layer).collect()
    }

    fn factor(&self, name: &str, shape: [usize; 2]) -> Result<Tensor, Error> {
        let name = format!("{PREFIX}{name}");
        let data = self.tensors.get(&name);
        let data =
            data.ok_or_else(|| Error::file(MODEL_FILE, format!("tensor `{name}` is missing")))?;
        if data.shape != shape {
            let found = &data.shape;
            let reason = format!("tensor `{name}` is {found:?}, but {shape:?} is needed");
            return Err(Error::file(MODEL_FILE, reason));
        }
        let tensor = from_data(data)?;
        let dtype = LoraLinear::factors_dtype(tensor.dtype());
        tensor.to_dtype(dtype).map_err(candle_error)
    }
}

/// The module of a tensor that is A or B.
fn factor(name: &str) -> Option<&str> {
    name.strip_suffix(A).or_else(|| name.strip_suffix(B))
}
