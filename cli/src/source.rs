//! What a run trains on: the network and the data that the options name.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lora_pro_finetune::{
    Dataset, Experiment, LanguageTask, PreparedText, SmallTask, TargetKind, Task, TextSource,
    TextTask,
};
use lora_pro_models::{ModelFiles, Precision};
use serde::{Deserialize, Serialize};

use crate::backends::Choice;
use crate::failure::Failure;
use crate::output::note;

/// What a model is fine-tuned to do with a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TaskName {
    /// Tell its class
    #[default]
    Classify,
    /// Tell its score, a number
    Regress,
    /// Write what follows: a causal language model
    Lm,
}

/// In which type the frozen weights of a pre-trained model are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32 bits
    #[default]
    F32,
    /// As in the model's files; what is quantised there becomes f16. Layers compute in f32
    Stored,
}

/// The options that name network and data.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceArgs {
    /// A pre-trained model: a folder with config.json, model.safetensors and tokenizer.json, or a name
    /// on the Hugging Face hub. Without it, a small network is pre-trained on a part of the data
    #[arg(long, value_name = "DIR|NAME")]
    pub model: Option<String>,
    /// `digits`, or a CSV file: features, then the class as a whole number from 0 [default: digits].
    /// With --model, text: a CSV, TSV or JSON-lines file with the columns `text` and `label`; for a
    /// language model JSON lines with `prompt` and `completion`, with `messages`, or with `text`
    /// [default: film-reviews.tsv beside the model's folder]
    #[arg(long, value_name = "digits|FILE")]
    pub data: Option<String>,
    /// What the model is to tell of a text [default: classify]
    #[arg(long, value_enum, value_name = "TASK")]
    pub task: Option<TaskName>,
    /// Such a file to validate on [default: a tenth of the data]
    #[arg(long, value_name = "FILE")]
    pub validation_data: Option<PathBuf>,
    /// Such a file to test on [default: a fifth of the data]
    #[arg(long, value_name = "FILE")]
    pub test_data: Option<PathBuf>,
    /// Type of the frozen weights of --model [default: f32]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dtype: Option<Dtype>,
    /// Tokens to which a text is cut [default: 128; for a language model 256]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Steps of a small network's pre-training, before anything is adapted
    #[arg(long, value_name = "N")]
    pub pretrain_steps: Option<usize>,
}

impl Dtype {
    pub fn precision(self) -> Precision {
        match self {
            Dtype::F32 => Precision::F32,
            Dtype::Stored => Precision::AsStored,
        }
    }
}

/// The network and the examples, and the experiment that suits them.
pub struct Source {
    /// Network and examples.
    pub task: Task,
    /// The defaults of a run or a comparison.
    pub experiment: Experiment,
    /// The pre-trained model; `None` where the network was made here and is saved beside the adapter.
    pub model: Option<PretrainedModel>,
}

/// What is known of a pre-trained model besides its network.
pub struct PretrainedModel {
    /// As it was named: where an adapter says that its frozen network comes from.
    pub name: String,
    /// Configuration and tokenizer.
    pub files: ModelFiles,
    /// Modules beside the head that its files lack.
    pub made: Vec<String>,
}

impl PretrainedModel {
    fn new(name: &str, folder: PathBuf, prepared: &PreparedText) -> Self {
        let head = prepared.task.base.model.head();
        let modules = prepared
            .made
            .iter()
            .filter_map(|name| name.rsplit_once('.'));
        let modules = modules.map(|(module, _)| module);
        let mut made: Vec<String> = modules
            .filter(|module| Some(*module) != head)
            .map(String::from)
            .collect();
        made.dedup();
        PretrainedModel {
            name: name.into(),
            files: ModelFiles {
                config: prepared.config.clone(),
                tokenizer: prepared.tokenizer.clone(),
                source: folder,
            },
            made,
        }
    }
}

/// The text that is trained on by default, as `scripts/fetch-models.sh` names it.
const REVIEWS: &str = "film-reviews.tsv";

impl SourceArgs {
    /// Reads the data; loads or pre-trains the network.
    pub fn load(&self, choice: &Choice) -> Result<Source, Failure> {
        match &self.model {
            Some(model) => self.text(model),
            None => self.small(choice),
        }
    }

    /// `digits` are embedded, and fine-tuning sees them turned by 90 degrees. Anything else is a CSV
    /// file, of which pre-training and fine-tuning see different rows.
    fn small(&self, choice: &Choice) -> Result<Source, Failure> {
        let given = [
            ("task", self.task.is_some()),
            ("validation-data", self.validation_data.is_some()),
            ("test-data", self.test_data.is_some()),
            ("max-length", self.max_length.is_some()),
            ("dtype", self.dtype.is_some()),
        ];
        if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Failure::Input(format!("--{name} needs --model")));
        }
        let (mut small, data) = match self.data.as_deref().unwrap_or("digits") {
            "digits" => (SmallTask::default(), Dataset::digits()?),
            path => (
                SmallTask::without_shift(),
                Dataset::from_csv(Path::new(path))?,
            ),
        };
        if let Some(steps) = self.pretrain_steps {
            small.pretraining.steps = steps;
        }
        Ok(Source {
            task: small.prepare(&data, choice.make()?)?,
            experiment: Experiment::default(),
            model: None,
        })
    }

    fn text(&self, model: &str) -> Result<Source, Failure> {
        if self.pretrain_steps.is_some() {
            let message = "--pretrain-steps is for small networks, not for --model";
            return Err(Failure::Input(message.into()));
        }
        let folder = lora_pro_models::find(model)?;
        let kind = match self.task.unwrap_or_default() {
            TaskName::Classify => TargetKind::Class,
            TaskName::Regress => TargetKind::Score,
            TaskName::Lm => return self.language(model, folder),
        };
        let data = match &self.data {
            Some(data) => data.into(),
            None => default_data(&folder)?,
        };
        let mut text = TextTask::new(&folder, data, kind);
        self.set(&mut text.source);
        let prepared = text.prepare()?;
        if !prepared.made.is_empty() {
            let made = prepared.made.join(", ");
            note(&format!("new, since the model's files lack it: {made}"));
        }
        Ok(Source {
            model: Some(PretrainedModel::new(model, folder, &prepared)),
            experiment: Experiment::for_text(prepared.task.train.len()),
            task: prepared.task,
        })
    }

    fn language(&self, model: &str, folder: PathBuf) -> Result<Source, Failure> {
        let missing = "--task lm needs --data: a JSON-lines file with `prompt` and `completion`, \
                       with `messages`, or with `text`";
        let data = self.data.as_ref();
        let data = data.ok_or_else(|| Failure::Input(missing.into()))?;
        let mut language = LanguageTask::new(&folder, data);
        self.set(&mut language.source);
        let (prepared, dropped) = language.prepare()?;
        if dropped > 0 {
            note(&format!(
                "left out {dropped} examples: cut to {} tokens, they have nothing to learn",
                prepared.tokenizer.max_length()
            ));
        }
        Ok(Source {
            model: Some(PretrainedModel::new(model, folder, &prepared)),
            experiment: Experiment::for_language(prepared.task.train.len()),
            task: prepared.task,
        })
    }

    /// What the options say of any task on text.
    fn set(&self, source: &mut TextSource) {
        source.precision = self.dtype.unwrap_or_default().precision();
        source.held_out = [self.validation_data.clone(), self.test_data.clone()];
        if let Some(length) = self.max_length {
            source.max_length = length;
        }
    }
}

/// The film reviews beside the model's folder.
fn default_data(model: &Path) -> Result<PathBuf, Failure> {
    let beside = model.parent().unwrap_or(Path::new("")).join(REVIEWS);
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Failure::Input(format!(
        "{}: no such file; name the text by --data, or fetch it by scripts/fetch-models.sh",
        beside.display()
    )))
}
