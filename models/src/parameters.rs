//! The tensors of a model by name, the adapters on its modules, and what is trained.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Tensor, Var};
use candle_nn::Linear;
use lora_pro_candle::bridge::{candle_error, from_data, matrix_shape, to_data};
use lora_pro_candle::{LoraLinear, LoraPro, MODEL_FILE, PeftAdapter};
use lora_pro_core::{
    Error, ParamSpec, Scale, TensorData, encode_tensors, read_tensors, write_atomically,
};

/// A model's numbers.
///
/// A clone shares variables with the original; [`Parameters::merged`] does not.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    tensors: BTreeMap<String, Tensor>,
    adapters: BTreeMap<String, LoraLinear>,
    trained: BTreeMap<String, Var>,
}

impl Parameters {
    /// Frozen tensors under their names: `encoder.layer.0.attention.self.query.weight`.
    pub fn new(tensors: BTreeMap<String, Tensor>) -> Self {
        Parameters {
            tensors,
            ..Self::default()
        }
    }

    /// All tensors, trained ones included, without adapters.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// A tensor; its absence is an error that names it.
    pub fn tensor(&self, name: &str) -> candle_core::Result<&Tensor> {
        let missing = || candle_core::Error::Msg(format!("tensor `{name}` is missing"));
        self.tensors.get(name).ok_or_else(missing)
    }

    /// Adds a tensor, or puts another in its place.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// The layer of `module` without its adapter: weight, m x n, and the bias if there is one.
    pub fn linear(&self, module: &str) -> candle_core::Result<Linear> {
        let weight = self.tensor(&format!("{module}.weight"))?.clone();
        let bias = self.tensors.get(&format!("{module}.bias")).cloned();
        Ok(Linear::new(weight, bias))
    }

    /// Puts an adapter on `module`, at its start ([`LoraLinear::new`]).
    ///
    /// Rejects a module that is missing, and a rank or a scale that does not fit.
    pub fn adapt(&mut self, module: &str, r: usize, scale: Scale, seed: u64) -> Result<(), Error> {
        let base = self.linear(module).map_err(candle_error)?;
        self.insert_adapter(LoraLinear::new(module, base, r, scale, seed)?);
        Ok(())
    }

    /// Puts an adapter on the module that its specification names.
    pub fn insert_adapter(&mut self, adapter: LoraLinear) {
        self.adapters.insert(adapter.spec().name.clone(), adapter);
    }

    /// The adapter of `module`.
    pub fn adapter(&self, module: &str) -> Option<&LoraLinear> {
        self.adapters.get(module)
    }

    /// All adapters, by name.
    pub fn adapters(&self) -> impl Iterator<Item = &LoraLinear> {
        self.adapters.values()
    }

    /// Makes a variable of a tensor, so that it is trained as a whole.
    pub fn train(&mut self, name: &str) -> Result<(), Error> {
        let variable = || {
            let var = Var::from_tensor(self.tensor(name)?)?;
            Ok((var.as_tensor().clone(), var))
        };
        let (tensor, var) = variable().map_err(candle_error)?;
        self.tensors.insert(name.into(), tensor);
        self.trained.insert(name.into(), var);
        Ok(())
    }

    /// Makes variables of a module's weight and bias.
    pub fn train_module(&mut self, module: &str) -> Result<(), Error> {
        self.train(&format!("{module}.weight"))?;
        let bias = format!("{module}.bias");
        match self.tensors.contains_key(&bias) {
            true => self.train(&bias),
            false => Ok(()),
        }
    }

    /// The tensors that are trained as a whole, by name.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.trained.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// Numbers that are trained.
    pub fn trained_count(&self) -> usize {
        let adapters = self
            .adapters()
            .map(|one| one.a().elem_count() + one.b().elem_count());
        let whole = self.trained().map(|(_, var)| var.elem_count());
        adapters.chain(whole).sum()
    }

    /// Registers adapters and trained tensors with an optimizer; `group` tells a trained tensor's
    /// group, if it is in one.
    pub fn register<'g>(
        &self,
        optimizer: &mut LoraPro,
        group: impl Fn(&str) -> Option<&'g str>,
    ) -> Result<(), Error> {
        for adapter in self.adapters() {
            optimizer.add_layer(adapter)?;
        }
        for (name, var) in self.trained() {
            let [rows, cols] = matrix_shape(var.dims());
            let spec = ParamSpec::new(name, rows, cols);
            let spec = match group(name) {
                Some(group) => spec.group(group),
                None => spec,
            };
            optimizer.add_param(spec, var)?;
        }
        Ok(())
    }

    /// The same without variables: every adapter merged, what was trained copied.
    pub fn merged(&self) -> candle_core::Result<Self> {
        let mut tensors = self.tensors.clone();
        for (name, var) in &self.trained {
            tensors.insert(name.clone(), var.copy()?.detach());
        }
        for (module, adapter) in &self.adapters {
            let weight = adapter.merged()?.weight().clone();
            tensors.insert(format!("{module}.weight"), weight);
        }
        Ok(Self::new(tensors))
    }

    /// The same with a PEFT adapter on it, to be trained further or merged; tensors of modules that were
    /// trained as a whole are replaced.
    ///
    /// Rejects an adapter for modules that are missing or of another shape.
    pub fn with_adapter(&self, adapter: &PeftAdapter) -> Result<Self, Error> {
        let mut adapted = self.clone();
        let base = |module: &str| {
            let missing = |_| lacking("linear module", module);
            self.linear(module).map_err(missing)
        };
        for layer in adapter.layers(base)? {
            adapted.insert_adapter(layer);
        }
        for (name, data) in adapter.saved() {
            let Some(old) = self.tensors.get(name) else {
                return Err(lacking("tensor", name));
            };
            if data.shape != old.dims() {
                let (found, expected) = (&data.shape, old.dims());
                let reason =
                    format!("tensor `{name}` is {found:?}, but the model's is {expected:?}");
                return Err(Error::file(MODEL_FILE, reason));
            }
            let new = from_data(data)?.to_dtype(old.dtype());
            adapted.insert(name, new.map_err(candle_error)?);
        }
        Ok(adapted)
    }

    /// Whether all trained numbers are finite.
    pub fn is_finite(&self) -> candle_core::Result<bool> {
        let factors = self
            .adapters()
            .flat_map(|adapter| [adapter.a(), adapter.b()]);
        let mut vars = factors.chain(self.trained.values());
        vars.try_fold(true, |finite, var| {
            // One number that is not finite makes the sum so.
            let sum = var.to_dtype(candle_core::DType::F64)?.abs()?.sum_all()?;
            Ok(finite && sum.to_scalar::<f64>()?.is_finite())
        })
    }

    /// Writes the tensors, without adapters, as a safetensors file.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut tensors = BTreeMap::new();
        self.write("", &mut tensors)?;
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let bytes = encode_tensors(&tensors, metadata);
        write_atomically(path, &bytes.map_err(|reason| Error::file(path, reason))?)
    }

    /// The tensors of a safetensors file, frozen.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|error| Error::file(path, error))?;
        let tensors = read_tensors(&bytes).map_err(|error| Error::file(path, error))?;
        Self::read("", &tensors).map_err(|error| Error::file(path, error))
    }

    /// Adds the tensors under `<prefix><name>`.
    pub fn write(
        &self,
        prefix: &str,
        tensors: &mut BTreeMap<String, TensorData>,
    ) -> Result<(), Error> {
        for (name, tensor) in &self.tensors {
            tensors.insert(format!("{prefix}{name}"), to_data(tensor)?);
        }
        Ok(())
    }

    /// What [`Parameters::write`] wrote.
    pub fn read(prefix: &str, tensors: &BTreeMap<String, TensorData>) -> Result<Self, Error> {
        let own = tensors.iter().filter_map(|(name, data)| {
            let name = name.strip_prefix(prefix)?;
            Some(from_data(data).map(|tensor| (name.to_string(), tensor)))
        });
        Ok(Self::new(own.collect::<Result<_, _>>()?))
    }
}

/// An adapter for another model.
fn lacking(what: &str, name: &str) -> Error {
    let reason = format!("it is for another model: the model has no {what} `{name}`");
    Error::file(MODEL_FILE, reason)
}
