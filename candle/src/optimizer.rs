//! The optimizer of a candle model: core's, with the variables that it steps.

use std::path::Path;

use candle_core::{Tensor, TensorId, Var, backprop::GradStore};
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Backend, Config, Error, Hyper, Optimizer, ParamId, ParamIo,
    ParamSpec, StepReport, TensorData, TensorFile,
};

use crate::bridge::{Buffer, TensorView, candle_error, dtype, from_data, matrix_shape, to_data};
use crate::lora_linear::LoraLinear;

/// LoRA-Pro for candle's variables.
///
/// Register every [`LoraLinear`] and every other variable that is trained (head, biases, norms: AdamW
/// steps them) once, then call [`LoraPro::backward_step`] with each loss. It is a
/// [`candle_nn::Optimizer`] too, for loops that are written for any optimizer.
#[derive(Debug)]
pub struct LoraPro {
    optimizer: Optimizer,
    adapters: Vec<TrainedAdapter>,
    params: Vec<TrainedParam>,
    rejected: Option<Error>,
}

/// A variable, and the memory in which its coming values are computed.
#[derive(Debug)]
struct Trained {
    var: Var,
    buffer: Buffer,
}

#[derive(Debug)]
struct TrainedAdapter {
    id: AdapterId,
    a: Trained,
    b: Trained,
}

#[derive(Debug)]
struct TrainedParam {
    id: ParamId,
    value: Trained,
}

impl LoraPro {
    /// An optimizer without variables. Rejects a configuration that is out of range.
    pub fn new(backend: impl Backend + 'static, config: Config) -> Result<Self, Error> {
        Ok(LoraPro {
            optimizer: Optimizer::new(backend, config)?,
            adapters: Vec::new(),
            params: Vec::new(),
            rejected: None,
        })
    }

    /// Registers a layer's adapter.
    pub fn add_layer(&mut self, layer: &LoraLinear) -> Result<AdapterId, Error> {
        self.add_adapter(layer.spec().clone(), layer.a(), layer.b())
    }

    /// Registers an adapter of a layer of the caller's own: A, r x n, and B, m x r.
    pub fn add_adapter(&mut self, spec: AdapterSpec, a: &Var, b: &Var) -> Result<AdapterId, Error> {
        self.check_new(&spec.subject(), &[a, b])?;
        let (a, b) = (Trained::new(a)?, Trained::new(b)?);
        let id = self.optimizer.add_adapter(spec)?;
        self.adapters.push(TrainedAdapter { id, a, b });
        Ok(id)
    }

    /// Registers a variable that ordinary AdamW steps, in no group.
    pub fn add_var(&mut self, name: &str, var: &Var) -> Result<ParamId, Error> {
        let [rows, cols] = matrix_shape(var.dims());
        self.add_param(ParamSpec::new(name, rows, cols), var)
    }

    /// As [`LoraPro::add_var`], with a specification of one's own: in a group. The storage type is
    /// the variable's.
    pub fn add_param(&mut self, spec: ParamSpec, var: &Var) -> Result<ParamId, Error> {
        let spec = spec.dtype(dtype(var)?);
        self.check_new(&spec.subject(), &[var])?;
        let value = Trained::new(var)?;
        let id = self.optimizer.add_param(spec)?;
        self.params.push(TrainedParam { id, value });
        Ok(id)
    }

    /// Steps everything that has a gradient. A variable without one (a layer that the loss does not
    /// use) stays as it is, as in candle's own optimizers; an adapter needs both gradients or none.
    ///
    /// On an error no variable and no state has changed.
    pub fn step(&mut self, gradients: &GradStore) -> Result<StepReport, Error> {
        if let Some(error) = self.rejected.take() {
            return Err(error);
        }
        let (mut adapters, mut adapter_gradients) = (Vec::new(), Vec::new());
        for adapter in &mut self.adapters {
            if let Some(both) = adapter.gradients(gradients, &self.optimizer)? {
                adapters.push(adapter);
                adapter_gradients.push(both);
            }
        }
        let (mut params, mut param_gradients) = (Vec::new(), Vec::new());
        for param in &mut self.params {
            if let Some(one) = gradient(gradients, &param.value.var)? {
                params.push(param);
                param_gradients.push(one);
            }
        }
        let report = {
            // The views borrow from these, which keep the gradients' storages locked.
            let locked_pairs: Vec<_> = adapter_gradients
                .iter()
                .map(|both| both.each_ref().map(TensorView::new))
                .collect();
            let locked: Vec<_> = param_gradients.iter().map(TensorView::new).collect();
            let mut adapter_io = Vec::with_capacity(adapters.len());
            for (adapter, [grad_a, grad_b]) in adapters.iter_mut().zip(&locked_pairs) {
                let (a, b) = (adapter.a.read()?, adapter.b.read()?);
                let (grad_a, grad_b) = (grad_a.matrix()?, grad_b.matrix()?);
                adapter_io.push(AdapterIo::new(adapter.id, a, b, grad_a, grad_b));
            }
            let mut param_io = Vec::with_capacity(params.len());
            for (param, grad) in params.iter_mut().zip(&locked) {
                param_io.push(ParamIo::new(param.id, param.value.read()?, grad.matrix()?));
            }
            self.optimizer
                .step_with_params(&mut adapter_io, &mut param_io)?
        };
        self.optimizer.sync()?;
        for adapter in adapters {
            adapter.a.write_back()?;
            adapter.b.write_back()?;
        }
        for param in params {
            param.value.write_back()?;
        }
        Ok(report)
    }

    /// Backpropagates from `loss` and takes a step.
    pub fn backward_step(&mut self, loss: &Tensor) -> Result<StepReport, Error> {
        self.step(&loss.backward().map_err(candle_error)?)
    }

    /// Core's optimizer: configuration, counters, state, reports.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The learning rate of the coming steps ([`Optimizer::set_lr`]).
    pub fn set_lr(&mut self, lr: f64) -> Result<(), Error> {
        self.optimizer.set_lr(lr)
    }

    /// The factor on all learning rates ([`Optimizer::set_lr_factor`]).
    pub fn set_lr_factor(&mut self, factor: f64) -> Result<(), Error> {
        self.optimizer.set_lr_factor(factor)
    }

    /// The factor on all gradients ([`Optimizer::set_grad_scale`]).
    pub fn set_grad_scale(&mut self, factor: f64) -> Result<(), Error> {
        self.optimizer.set_grad_scale(factor)
    }

    /// A group's hyper-parameters ([`Optimizer::set_hyper`]).
    pub fn set_hyper(&mut self, group: Option<&str>, hyper: Hyper) -> Result<(), Error> {
        self.optimizer.set_hyper(group, hyper)
    }

    /// The configuration of the coming steps ([`Optimizer::set_config`]).
    pub fn set_config(&mut self, config: Config) -> Result<(), Error> {
        self.optimizer.set_config(config)
    }

    /// Writes a checkpoint: all registered variables, and everything that continuing to the last bit
    /// needs. The file that was there stays as [`lora_pro_core::backup_path`].
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let mut file = TensorFile::new();
        self.save_to(&mut file)?;
        file.save(path.as_ref())
    }

    /// Takes variables, configuration, counters and state from a file that [`LoraPro::save`] wrote
    /// for the same model. After an error about the file nothing has changed.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        self.load_from(&TensorFile::load(path)?, path)
    }

    /// Adds to a file what [`LoraPro::save`] writes: variables as `trained.<name>` (an adapter's as
    /// `trained.<name>.lora_A` and `.lora_B`), and core's part ([`Optimizer::save_to`]).
    pub fn save_to(&mut self, file: &mut TensorFile) -> Result<(), Error> {
        for (name, var) in self.vars() {
            file.tensors.insert(name, to_data(var)?);
        }
        self.optimizer.save_to(file)
    }

    /// As [`LoraPro::load`], from what [`LoraPro::save_to`] added; `path` is only for error messages.
    pub fn load_from(&mut self, file: &TensorFile, path: &Path) -> Result<(), Error> {
        let mut loaded = Vec::new();
        for (name, var) in self.vars() {
            let data = find(file, &name, var).map_err(|reason| Error::file(path, reason))?;
            let tensor = from_data(data)?.reshape(var.dims());
            loaded.push((var.clone(), tensor.map_err(candle_error)?));
        }
        self.optimizer.restore_from(file, path)?;
        let mut loaded = loaded.iter();
        loaded.try_for_each(|(var, tensor)| var.set(tensor).map_err(candle_error))
    }

    /// All variables with their names in a checkpoint.
    fn vars(&self) -> impl Iterator<Item = (String, &Var)> {
        let slots = self.optimizer.adapters();
        let adapters = self.adapters.iter().flat_map(|adapter| {
            let name = &slots[adapter.id.index()].spec.name;
            [
                (format!("trained.{name}.lora_A"), &adapter.a.var),
                (format!("trained.{name}.lora_B"), &adapter.b.var),
            ]
        });
        let slots = self.optimizer.params();
        let params = self.params.iter().map(|param| {
            let name = &slots[param.id.index()].spec.name;
            (format!("trained.{name}"), &param.value.var)
        });
        adapters.chain(params)
    }

    /// Rejects a variable that is registered already: one step would write it twice.
    fn check_new(&self, subject: &str, vars: &[&Var]) -> Result<(), Error> {
        let known: Vec<TensorId> = self.vars().map(|(_, var)| var.id()).collect();
        let twice = vars.iter().enumerate().any(|(k, var)| {
            known.contains(&var.id()) || vars[..k].iter().any(|other| other.id() == var.id())
        });
        match twice {
            false => Ok(()),
            true => Err(Error::Duplicate {
                subject: subject.into(),
                what: "has a variable that is registered already",
            }),
        }
    }
}

impl Trained {
    fn new(var: &Var) -> Result<Self, Error> {
        let (var, buffer) = (var.clone(), Buffer::new(var)?);
        Ok(Trained { var, buffer })
    }

    /// The variable's present numbers, to be stepped.
    fn read(&mut self) -> Result<lora_pro_core::MatMut<'_>, Error> {
        self.buffer.read(&self.var)?;
        self.buffer.matrix_mut()
    }

    /// Gives the variable the stepped numbers.
    fn write_back(&mut self) -> Result<(), Error> {
        self.buffer.swap(&self.var)
    }
}

impl TrainedAdapter {
    /// gA and gB, or nothing where the loss does not depend on the adapter.
    fn gradients(
        &self,
        gradients: &GradStore,
        optimizer: &Optimizer,
    ) -> Result<Option<[Tensor; 2]>, Error> {
        match (
            gradient(gradients, &self.a.var)?,
            gradient(gradients, &self.b.var)?,
        ) {
            (Some(a), Some(b)) => Ok(Some([a, b])),
            (None, None) => Ok(None),
            (a, _) => {
                let subject = optimizer.adapter(self.id)?.spec.subject();
                let missing = if a.is_none() {
                    "absent for A"
                } else {
                    "absent for B"
                };
                Err(Error::invalid(
                    &subject,
                    "gradient",
                    missing,
                    "there for both factors",
                ))
            }
        }
    }
}

/// A variable's gradient in a form that [`TensorView::matrix`] takes.
fn gradient(gradients: &GradStore, var: &Var) -> Result<Option<Tensor>, Error> {
    let gradient = gradients
        .get(var)
        .map(|gradient| match gradient.dims().len() {
            0..=2 => Ok(gradient.clone()),
            _ => gradient.contiguous(),
        });
    gradient.transpose().map_err(candle_error)
}

/// A variable's numbers in a file, if they fit it.
fn find<'f>(file: &'f TensorFile, name: &str, var: &Var) -> Result<&'f TensorData, String> {
    let data = file.tensors.get(name);
    let data = data.ok_or_else(|| format!("tensor `{name}` is missing"))?;
    let expected = dtype(var).map_err(|error| error.to_string())?;
    if data.dtype != expected || matrix_shape(&data.shape) != matrix_shape(var.dims()) {
        return Err(format!(
            "tensor `{name}` does not fit: it is {} {:?}, but {expected} {:?} is needed",
            data.dtype,
            data.shape,
            var.dims()
        ));
    }
    Ok(data)
}

/// What [`candle_nn::Optimizer::new`] takes besides the variables.
pub struct LoraProConfig {
    /// What computes.
    pub backend: Box<dyn Backend>,
    /// Method, learning rate, schedule and so on.
    pub config: Config,
    /// The layers with adapters. Variables that belong to none are stepped by AdamW, under the names
    /// `param.0`, `param.1`, ... in their order.
    pub layers: Vec<LoraLinear>,
}

impl std::fmt::Debug for LoraProConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoraProConfig")
            .field("backend", &self.backend.manifest().name)
            .field("config", &self.config)
            .field("layers", &self.layers)
            .finish()
    }
}

/// [`candle_nn::Optimizer::set_learning_rate`] cannot fail; a rate that is out of range is reported
/// by the next step, and the old one stays.
impl candle_nn::Optimizer for LoraPro {
    type Config = LoraProConfig;

    fn new(vars: Vec<Var>, config: LoraProConfig) -> candle_core::Result<Self> {
        let build = || {
            let mut optimizer = LoraPro::new(config.backend, config.config)?;
            for layer in &config.layers {
                optimizer.add_layer(layer)?;
            }
            let paired: Vec<TensorId> = optimizer.vars().map(|(_, var)| var.id()).collect();
            let unpaired = vars.iter().filter(|var| !paired.contains(&var.id()));
            for (k, var) in unpaired.filter(|var| var.dtype().is_float()).enumerate() {
                optimizer.add_var(&format!("param.{k}"), var)?;
            }
            Ok(optimizer)
        };
        build().map_err(|error: Error| candle_core::Error::wrap(error))
    }

    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        let report = LoraPro::step(self, gradients).map_err(candle_core::Error::wrap);
        report.map(|_| ())
    }

    fn learning_rate(&self) -> f64 {
        self.optimizer.config().hyper.lr
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.rejected = self.set_lr(lr).err();
    }
}
