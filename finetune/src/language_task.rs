//! Text that a pre-trained language model learns to continue.

use std::path::PathBuf;

use lora_pro_core::Error;

use crate::text::{ChatTemplate, LanguageDataset};
use crate::text_source::{PreparedText, TextSource};
use crate::tokenized_language::TokenizedLanguage;

/// Where a language model and what it learns come from.
#[derive(Clone, Debug, PartialEq)]
pub struct LanguageTask {
    /// Model, and JSON-lines files ([`LanguageDataset::read`]).
    pub source: TextSource,
    /// How turns of conversations are marked.
    pub template: ChatTemplate,
}

impl LanguageTask {
    /// A task with the usual settings: a fifth of the data to test on, a tenth to validate on, texts of
    /// at most 256 tokens, ChatML.
    pub fn new(model: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Self {
        LanguageTask {
            source: TextSource::new(model, data, 256),
            template: ChatTemplate::chat_ml(),
        }
    }

    /// Loads model and text, and says how many examples were dropped because nothing was left to learn
    /// of them. The split is the same for every run.
    ///
    /// Errors name the file, and what is wrong in it.
    pub fn prepare(&self) -> Result<(PreparedText, usize), Error> {
        let data = LanguageDataset::read(&self.source.data)?;
        let (loaded, tokenizer) = self.source.load(lora_pro_models::Task::LanguageModel)?;
        let end = loaded.config["eos_token_id"].as_u64();
        let end = end.and_then(|end| u32::try_from(end).ok());
        let tokens =
            |data: &LanguageDataset| TokenizedLanguage::new(data, &tokenizer, &self.template, end);
        let all = tokens(&data)?;
        let parts = self.source.split(&all, TokenizedLanguage::part, |file| {
            tokens(&LanguageDataset::read(file)?)
        })?;
        let name = format!("{}: the next token", data.name);
        let trained = "its linear layers carry adapters";
        let model = (loaded, tokenizer);
        let prepared = self
            .source
            .prepared(name, trained, model, parts, Vec::new());
        Ok((prepared, all.dropped()))
    }
}
