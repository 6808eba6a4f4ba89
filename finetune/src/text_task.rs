//! Text that a pre-trained model is to classify, or to score.

use std::path::PathBuf;

use lora_pro_core::Error;

use crate::text::{TargetKind, TextColumns, TextDataset};
use crate::text_source::{PreparedText, TextSource};
use crate::tokenized::TokenizedText;

/// Where model and text come from, and what is to be told of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextTask {
    /// Model, and CSV, TSV or JSON-lines files.
    pub source: TextSource,
    /// Class or score.
    pub kind: TargetKind,
    /// The columns.
    pub columns: TextColumns,
}

impl TextTask {
    /// A task with the usual settings: a fifth of the data to test on, a tenth to validate on, texts of
    /// at most 128 tokens.
    pub fn new(model: impl Into<PathBuf>, data: impl Into<PathBuf>, kind: TargetKind) -> Self {
        TextTask {
            source: TextSource::new(model, data, 128),
            kind,
            columns: TextColumns::default(),
        }
    }

    /// Loads model and text. The split is the same for every run.
    ///
    /// Errors name the file, and what is wrong in it.
    pub fn prepare(&self) -> Result<PreparedText, Error> {
        let data = TextDataset::read(&self.source.data, self.kind, &self.columns)?;
        let (task, name) = match self.kind {
            TargetKind::Class => (
                lora_pro_models::Task::Classify(data.classes.len()),
                format!("{}: {}", data.name, data.classes.join(", ")),
            ),
            TargetKind::Score => (
                lora_pro_models::Task::Regress,
                format!("{}: a score", data.name),
            ),
        };
        let (loaded, tokenizer) = self.source.load(task)?;
        let all = TokenizedText::new(&data, &tokenizer)?;
        let parts = self.source.split(&all, TokenizedText::part, |file| {
            TokenizedText::new(&data.read_like(file, &self.columns)?, &tokenizer)
        })?;
        let trained = "its linear layers carry adapters, the head is trained by all";
        let model = (loaded, tokenizer);
        Ok(self
            .source
            .prepared(name, trained, model, parts, data.classes))
    }
}
