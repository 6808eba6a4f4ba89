//! What fixes one training run: the same settings from the command line and from a TOML file.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, Command, ValueEnum};
use lora_pro_candle::{PeftAdapter, Targets};
use lora_pro_core::{Config, Damping, Error, Method, Preset, Scale, XChoice};
use lora_pro_finetune::{Experiment, MethodSpec, RunConfig, Task, Trainable, Trainer, base_of};
use lora_pro_models::{labels, read_adapted_config, usual_labels};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::backends::Choice;
use crate::failure::Failure;
use crate::settings_file::{given, not_finite, read};
use crate::source::{Source, SourceArgs};
use crate::target_args::TargetArgs;

/// The methods of the command line. LoRA-Pro's modes are [`Mode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MethodName {
    /// AdamW on A and B, s = alpha / r
    Lora,
    /// LoRA with s = alpha / sqrt(r)
    #[value(name = "rslora")]
    #[serde(rename = "rslora")]
    RsLora,
    /// LoRA with a 16 times larger learning rate for B
    #[value(name = "lora+")]
    #[serde(rename = "lora+")]
    LoraPlus,
    /// Adjusted gradients: each step as near to full fine-tuning's as the rank allows
    #[default]
    #[value(name = "lora-pro")]
    #[serde(rename = "lora-pro")]
    LoraPro,
    /// Full fine-tuning: the same weights directly, without adapters
    #[value(name = "full-ft")]
    #[serde(rename = "full-ft")]
    FullFt,
}

/// LoRA-Pro's modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// AdamW on the adjusted gradients of A and B; state 2 r (m + n)
    Efficient,
    /// The full mode at LoRA's memory; state r (m + n) + m + n
    #[default]
    Factored,
    /// Adam on the equivalent gradient; state 2 m n
    Full,
    /// Descent along the adjusted gradients; no state
    Sgd,
}

/// Everything about a run that can be set, by option or in a file; what is absent has a default.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    #[command(flatten)]
    #[serde(flatten)]
    source: SourceArgs,
    /// How the weights are trained [default: lora-pro]
    #[arg(long, value_enum, value_name = "METHOD")]
    method: Option<MethodName>,
    /// LoRA-Pro's mode [default: factored]
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<Mode>,
    /// A folder with an adapter of an earlier run or of PEFT, to go on from: its factors, ranks, alphas
    /// and modules are taken; also its model, where --model names none
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Rank r of every adapter
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// Alpha: the scale s is alpha / r, or alpha / sqrt(r) for rslora
    #[arg(long, value_name = "ALPHA", value_parser = finite, allow_negative_numbers = true)]
    alpha: Option<f64>,
    #[command(flatten)]
    #[serde(flatten)]
    targets: TargetArgs,
    /// Steps to take
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Examples per step
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Fixes the start of A and the order of the data [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Passes over the training data, instead of --steps
    #[arg(long, value_name = "E", conflicts_with = "steps")]
    epochs: Option<f64>,
    /// Parts that a batch is passed through the model in, one after another, to save memory
    #[arg(long, value_name = "N")]
    micro_batches: Option<usize>,
    /// Probability of dropout before A
    #[arg(long, value_name = "P", value_parser = finite)]
    lora_dropout: Option<f64>,
    /// The file's table `[optimizer]`: any field of the optimizer's configuration.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Map::is_empty")]
    optimizer: Map<String, Value>,
}

/// The optimizer's most wanted options; a file can set all of them.
#[derive(Args, Clone, Debug, Default)]
pub struct OptimizerArgs {
    /// Learning rate
    #[arg(long, value_name = "LR", value_parser = finite, allow_negative_numbers = true)]
    lr: Option<f64>,
    /// The free matrix X: sylvester (the paper's), symmetric or zero
    #[arg(long, value_name = "X")]
    x: Option<XChoice>,
    /// Damping of Gram inverses: none, absolute:D, relative:C or cutoff:C
    #[arg(long, value_name = "DAMPING")]
    damping: Option<Damping>,
    /// Decoupled weight decay
    #[arg(long, value_name = "W", value_parser = finite, allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// Where defaults come from: recommended or paper
    #[arg(long, value_name = "PRESET")]
    preset: Option<Preset>,
}

/// The options of one run.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    optimizer: OptimizerArgs,
    /// Take settings from a TOML file; options on the command line win
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
}

/// A run, ready to start.
pub struct Plan {
    /// Network, examples, and what suits them.
    pub source: Source,
    /// The run.
    pub run: RunConfig,
    /// The adapter that it goes on from.
    pub adapter: Option<PeftAdapter>,
    /// True where nothing about the run was asked for: all of it is the default.
    pub by_default: bool,
}

impl RunArgs {
    /// Reads the file, lets the command line win, fills in defaults.
    pub fn plan(&self, choice: &Choice) -> Result<Plan, Failure> {
        let mut settings = self.merged()?;
        let adapter = settings.start()?;
        let source = settings.source.load(choice)?;
        let run = settings.run(&source, adapter.as_ref())?;
        let asked = Settings {
            source: SourceArgs {
                pretrain_steps: settings.source.pretrain_steps,
                ..SourceArgs::default()
            },
            ..settings
        };
        Ok(Plan {
            source,
            run,
            adapter,
            by_default: asked == Settings::default(),
        })
    }

    fn merged(&self) -> Result<Settings, Failure> {
        let mut fields = match &self.config {
            Some(path) => read(path)?,
            None => Map::new(),
        };
        fields.extend(given(&self.settings)?);
        let mut optimizer = match fields.remove("optimizer") {
            None => Map::new(),
            Some(Value::Object(optimizer)) => optimizer,
            Some(_) => return Err(self.refuse("`optimizer` must be a table")),
        };
        if optimizer.contains_key("method") {
            let reason =
                "`optimizer.method` follows from `method` and `mode`, which stand above it";
            return Err(self.refuse(reason));
        }
        optimizer.extend(self.optimizer.given()?);
        fields.insert("optimizer".into(), Value::Object(optimizer));
        if let Some(key) = not_finite(&fields) {
            return Err(self.refuse(format!("`{key}` is not a finite number")));
        }
        let known = known_fields();
        if let Some(key) = fields.keys().find(|key| !known.contains(key)) {
            let known = known.join("`, `");
            return Err(self.refuse(format!("unknown field `{key}`, expected one of `{known}`")));
        }
        Settings::deserialize(Value::Object(fields)).map_err(|error| self.refuse(error))
    }

    /// A refusal of what the settings are when taken together.
    fn refuse(&self, reason: impl fmt::Display) -> Failure {
        let place = self
            .config
            .as_deref()
            .unwrap_or(Path::new("the command line"));
        Error::file(place, reason.to_string()).into()
    }
}

/// What a file may set: what the options may, and the optimizer's table. A flattened struct cannot
/// say it by itself.
fn known_fields() -> Vec<String> {
    let options = Settings::augment_args(Command::new(""));
    let options = options
        .get_arguments()
        .map(|option| option.get_id().to_string());
    options.chain(["optimizer".into()]).collect()
}

/// A number of the command line; NaN and infinity are refused here, as in files.
pub fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "it is not a finite number".into())
}

impl OptimizerArgs {
    fn given(&self) -> Result<Map<String, Value>, Failure> {
        given(&serde_json::json!({
            "lr": self.lr,
            "x": self.x,
            "damping": self.damping,
            "weight_decay": self.weight_decay,
            "preset": self.preset,
        }))
    }
}

impl Plan {
    /// The run at its start, on `task`.
    pub fn start(&self, task: &Task, choice: &Choice) -> Result<Trainer, Failure> {
        let (data, run, backend) = (task.train.clone(), self.run.clone(), choice.make()?);
        Ok(match &self.adapter {
            Some(adapter) => Trainer::continuing(&task.base, data, run, adapter, backend)?,
            None => Trainer::new(&task.base, data, run, backend)?,
        })
    }
}

impl Settings {
    /// The adapter to go on from, whose base is the model where none is named.
    fn start(&mut self) -> Result<Option<PeftAdapter>, Failure> {
        let Some(folder) = &self.adapter else {
            return Ok(None);
        };
        let refuse = |what: &str, why: &str| {
            let folder = folder.display();
            let message = format!("{what} does not go with the adapter in {folder}: {why}");
            Err(Failure::Input(message))
        };
        let mut fixed = given(&serde_json::json!({ "rank": self.rank, "alpha": self.alpha }))?;
        fixed.extend(given(&self.targets)?);
        if let Some(field) = fixed.keys().next() {
            return refuse(field, "it has ranks, alphas and modules of its own");
        }
        let adapter = PeftAdapter::load(folder)?;
        match self.method {
            Some(MethodName::FullFt) => {
                return refuse(
                    "method full-ft",
                    "full fine-tuning has none; merge it first",
                );
            }
            Some(MethodName::RsLora) if !adapter.config.use_rslora => {
                return refuse("method rslora", "its scale is alpha / r");
            }
            _ => {}
        }
        if self.source.model.is_none() {
            self.source.model = Some(base_of(&adapter, folder)?.into());
        }
        Ok(Some(adapter))
    }

    /// Rejects data with other classes than the adapter to go on from has.
    fn check_classes(&self, source: &Source) -> Result<(), Failure> {
        let (Some(folder), Some(model)) = (&self.adapter, &source.model) else {
            return Ok(());
        };
        let named = read_adapted_config(folder)?.as_ref().and_then(labels);
        let own = labels(&model.files.config);
        match (named, own) {
            (Some(named), Some(own)) if named != own && named != usual_labels(named.len()) => {
                let reason = format!(
                    "its classes are {}, but those of the data are {}",
                    named.join(", "),
                    own.join(", ")
                );
                Err(Error::file(folder, reason).into())
            }
            _ => Ok(()),
        }
    }

    fn run(&self, source: &Source, adapter: Option<&PeftAdapter>) -> Result<RunConfig, Failure> {
        let experiment = &source.experiment;
        let method = self.method.unwrap_or_default();
        if self.mode.is_some() && method != MethodName::LoraPro {
            let message = format!("mode is for method lora-pro only, not for {method}");
            return Err(Failure::Input(message));
        }
        let rank = self.rank.unwrap_or(experiment.rank);
        let alpha = self.alpha.unwrap_or(experiment.alpha);
        let batch = self.batch.unwrap_or(experiment.batch);
        let steps = self.steps(source, batch)?;
        let scale = match method {
            MethodName::RsLora => Scale::RsLora(alpha),
            _ => Scale::Alpha(alpha),
        };
        let trainable = match method {
            MethodName::FullFt => Trainable::Weights,
            _ => Trainable::Adapters { rank, scale },
        };
        let dropout = adapter.map(|adapter| adapter.config.lora_dropout);
        let dropout = self.lora_dropout.or(dropout);
        let run = RunConfig {
            trainable,
            config: self.config(experiment, method, steps)?,
            seed: self.seed.unwrap_or(0),
            batch,
            micro_batches: self.micro_batches.unwrap_or(experiment.micro_batches),
            lora_dropout: dropout.unwrap_or(experiment.lora_dropout),
            targets: self.targets(source, trainable),
            steps,
        };
        let Some(adapter) = adapter else {
            return Ok(run);
        };
        self.check_classes(source)?;
        Ok(run.continuing(adapter, &source.task.base)?)
    }

    /// The targets; with adapters, what the model's files lack is trained as a whole, so that the
    /// adapter's files hold all that was not there before.
    fn targets(&self, source: &Source, trainable: Trainable) -> Targets {
        let mut targets = self.targets.targets().unwrap_or_default();
        let made = source.model.iter().flat_map(|model| &model.made);
        if matches!(trainable, Trainable::Adapters { .. }) {
            for module in made {
                let saved = targets.modules_to_save.get_or_insert_default();
                if !saved.contains(module) {
                    saved.push(module.clone());
                }
            }
        }
        targets
    }

    /// Steps, as asked for or as in the experiment.
    fn steps(&self, source: &Source, batch: usize) -> Result<usize, Failure> {
        match (self.steps, self.epochs) {
            (Some(_), Some(_)) => Err(Failure::Input("steps and epochs exclude each other".into())),
            (Some(steps), None) => Ok(steps),
            (None, None) => Ok(source.experiment.steps),
            (None, Some(epochs)) if epochs > 0.0 && epochs <= 1e6 => {
                let rows = epochs * source.task.train.len() as f64;
                Ok((rows / batch.max(1) as f64).ceil() as usize)
            }
            (None, Some(epochs)) => {
                let expected = "above 0 and at most 1e6";
                Err(Error::invalid("the run", "epochs", epochs, expected).into())
            }
        }
    }

    /// The optimizer's configuration: the experiment's, unless a preset is named, with what is
    /// given on top.
    fn config(
        &self,
        experiment: &Experiment,
        method: MethodName,
        steps: usize,
    ) -> Result<Config, Failure> {
        let mut fields = match self.optimizer.contains_key("preset") {
            true => Map::new(),
            false => given(&experiment.hyper)?,
        };
        if let Some(ratio) = method.lr_ratio() {
            fields.insert("lr_ratio".into(), ratio.into());
        }
        let common = given(&serde_json::json!({
            "schedule": experiment.schedule_over(steps),
            "max_grad_norm": experiment.max_grad_norm,
        }))?;
        fields.extend(common);
        fields.extend(self.optimizer.clone());
        let optimizer = method.optimizer(self.mode.unwrap_or_default());
        fields.insert("method".into(), optimizer.to_string().into());
        let config: Config = serde_json::from_value(Value::Object(fields))
            .map_err(|error| Failure::Input(format!("the optimizer's settings: {error}")))?;
        config.validate()?;
        Ok(config)
    }
}

impl MethodName {
    /// The optimizer of the adapters; full fine-tuning has AdamW on the weights.
    fn optimizer(self, mode: Mode) -> Method {
        match (self, mode) {
            (MethodName::LoraPro, Mode::Efficient) => Method::Efficient,
            (MethodName::LoraPro, Mode::Factored) => Method::Factored,
            (MethodName::LoraPro, Mode::Full) => Method::Full,
            (MethodName::LoraPro, Mode::Sgd) => Method::Sgd,
            _ => Method::Lora,
        }
    }

    /// Learning rate of B over that of A, where the method prescribes it.
    fn lr_ratio(self) -> Option<f64> {
        let plus = || MethodSpec::find("lora-plus").map(|method| method.lr_ratio);
        (self == MethodName::LoraPlus).then(plus).flatten()
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No variant is hidden from the command line.
        f.write_str(
            self.to_possible_value()
                .as_ref()
                .map_or("", |value| value.get_name()),
        )
    }
}
