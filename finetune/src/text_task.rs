//! A pre-trained model and the text that it is fine-tuned on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lora_pro_core::Error;
use lora_pro_models::{Loaded, Precision, TextTokenizer, load};

use crate::network::Network;
use crate::task::Task;
use crate::text::{Split, TargetKind, TextColumns, TextDataset};
use crate::tokenized::TokenizedText;

/// Where model and text come from, and what is to be told of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextTask {
    /// A folder of Hugging Face's layout.
    pub model: PathBuf,
    /// How the frozen weights are held.
    pub precision: Precision,
    /// A CSV, TSV or JSON-lines file.
    pub data: PathBuf,
    /// Such a file to validate on, and one to test on; without, they are parts of `data`.
    pub held_out: [Option<PathBuf>; 2],
    /// The shares of the data for validation and for testing, where they have no files.
    pub shares: [f64; 2],
    /// Class or score.
    pub kind: TargetKind,
    /// The columns.
    pub columns: TextColumns,
    /// Texts are cut to so many tokens.
    pub max_length: usize,
}

impl TextTask {
    /// A task with the usual settings: a fifth of the data to test on, a tenth to validate on, texts of
    /// at most 128 tokens.
    pub fn new(model: impl Into<PathBuf>, data: impl Into<PathBuf>, kind: TargetKind) -> Self {
        TextTask {
            model: model.into(),
            precision: Precision::default(),
            data: data.into(),
            held_out: [None, None],
            shares: [0.1, 0.2],
            kind,
            columns: TextColumns::default(),
            max_length: 128,
        }
    }

    /// Loads model and text. The split is the same for every run.
    ///
    /// Errors name the file, and what is wrong in it.
    pub fn prepare(&self) -> Result<PreparedText, Error> {
        let data = TextDataset::read(&self.data, self.kind, &self.columns)?;
        let task = match self.kind {
            TargetKind::Class => lora_pro_models::Task::Classify(data.classes.len()),
            TargetKind::Score => lora_pro_models::Task::Regress,
        };
        let loaded = load(&self.model, task, SEED, self.precision)?;
        let tokenizer = self.tokenizer(&loaded)?;
        let [train, validation, test] = self.parts(&data, &tokenizer)?;
        Ok(PreparedText {
            task: Task {
                name: self.describe(&data),
                about: format!(
                    "{}; its linear layers carry adapters, the head is trained by all",
                    describe_model(&self.model, &loaded)
                ),
                base: Network {
                    model: Arc::from(loaded.model),
                    parameters: loaded.parameters,
                },
                train: Arc::new(train),
                validation: Arc::new(validation),
                test: Arc::new(test),
            },
            classes: data.classes,
            tokenizer,
            config: loaded.config,
            made: loaded.made,
        })
    }

    fn tokenizer(&self, loaded: &Loaded) -> Result<TextTokenizer, Error> {
        let missing = || {
            Error::file(
                &self.model,
                "it has no tokenizer.json, but the data are text",
            )
        };
        let tokenizer = loaded.tokenizer.as_ref().ok_or_else(missing)?;
        tokenizer.with_max_length(self.max_length.min(tokenizer.max_length()))
    }

    /// Training, validation and test.
    fn parts(
        &self,
        data: &TextDataset,
        tokenizer: &TextTokenizer,
    ) -> Result<[TokenizedText; 3], Error> {
        let [validation, test] = &self.held_out;
        let share = |file: &Option<PathBuf>, share| if file.is_some() { 0.0 } else { share };
        let shares = [
            share(validation, self.shares[0]),
            share(test, self.shares[1]),
        ];
        let split = Split::new(data.examples.len(), SEED, shares[0], shares[1])?;
        let all = TokenizedText::new(data, tokenizer)?;
        let other = |file: &Option<PathBuf>, rows: &[usize]| match file {
            Some(file) => TokenizedText::new(&data.read_like(file, &self.columns)?, tokenizer),
            None => Ok(all.part(rows)),
        };
        Ok([
            all.part(&split.train),
            other(validation, &split.validation)?,
            other(test, &split.test)?,
        ])
    }

    fn describe(&self, data: &TextDataset) -> String {
        match self.kind {
            TargetKind::Class => format!("{}: {}", data.name, data.classes.join(", ")),
            TargetKind::Score => format!("{}: a score", data.name),
        }
    }
}

/// A task that is ready, and what belongs to it.
#[derive(Debug)]
pub struct PreparedText {
    /// Network and examples.
    pub task: Task,
    /// The names of the classes, in the order of the outputs; none for scores.
    pub classes: Vec<String>,
    /// The tokenizer, cutting at the task's length.
    pub tokenizer: TextTokenizer,
    /// `config.json` for this task.
    pub config: serde_json::Value,
    /// Tensors that the model's files lack and that were made anew.
    pub made: Vec<String>,
}

/// Fixes the split and the start of what the model's files lack.
pub(crate) const SEED: u64 = 0;

pub(crate) fn describe_model(folder: &Path, loaded: &Loaded) -> String {
    let count: usize = loaded
        .parameters
        .tensors()
        .values()
        .map(|tensor| tensor.elem_count())
        .sum();
    let kind = loaded.config["model_type"].as_str().unwrap_or("model");
    format!(
        "{} ({kind}, {:.1} M parameters)",
        folder.display(),
        count as f64 / 1e6
    )
}
