//! A pre-trained language model and the text that it is fine-tuned on.

use std::path::PathBuf;
use std::sync::Arc;

use lora_pro_core::Error;
use lora_pro_models::{Loaded, Precision, TextTokenizer, load};

use crate::network::Network;
use crate::task::Task;
use crate::text::{ChatTemplate, LanguageDataset, Split};
use crate::text_task::{PreparedText, SEED, describe_model};
use crate::tokenized_language::TokenizedLanguage;

/// Where a language model and what it learns come from.
#[derive(Clone, Debug, PartialEq)]
pub struct LanguageTask {
    /// A folder of Hugging Face's layout, or a GGUF file.
    pub model: PathBuf,
    /// How the frozen weights are held.
    pub precision: Precision,
    /// A JSON-lines file ([`LanguageDataset::read`]).
    pub data: PathBuf,
    /// Such a file to validate on, and one to test on; without, they are parts of `data`.
    pub held_out: [Option<PathBuf>; 2],
    /// The shares of the data for validation and for testing, where they have no files.
    pub shares: [f64; 2],
    /// How turns of conversations are marked.
    pub template: ChatTemplate,
    /// Texts are cut to so many tokens.
    pub max_length: usize,
}

impl LanguageTask {
    /// A task with the usual settings: a fifth of the data to test on, a tenth to validate on, texts of
    /// at most 256 tokens, ChatML.
    pub fn new(model: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Self {
        LanguageTask {
            model: model.into(),
            precision: Precision::default(),
            data: data.into(),
            held_out: [None, None],
            shares: [0.1, 0.2],
            template: ChatTemplate::chat_ml(),
            max_length: 256,
        }
    }

    /// Loads model and text, and says how many examples were dropped because nothing was left to learn
    /// of them. The split is the same for every run.
    ///
    /// Errors name the file, and what is wrong in it.
    pub fn prepare(&self) -> Result<(PreparedText, usize), Error> {
        let data = LanguageDataset::read(&self.data)?;
        let task = lora_pro_models::Task::LanguageModel;
        let loaded = load(&self.model, task, SEED, self.precision)?;
        let missing = || {
            Error::file(
                &self.model,
                "it has no tokenizer.json, but the data are text",
            )
        };
        let tokenizer = loaded.tokenizer.as_ref().ok_or_else(missing)?;
        let tokenizer = tokenizer.with_max_length(self.max_length.min(tokenizer.max_length()))?;
        let [train, validation, test] = self.parts(&data, &loaded, &tokenizer)?;
        let dropped = train.dropped();
        let task = Task {
            name: format!("{}: the next token", data.name),
            about: format!(
                "{}; its linear layers carry adapters",
                describe_model(&self.model, &loaded)
            ),
            base: Network {
                model: Arc::from(loaded.model),
                parameters: loaded.parameters,
            },
            train: Arc::new(train),
            validation: Arc::new(validation),
            test: Arc::new(test),
        };
        let prepared = PreparedText {
            task,
            classes: Vec::new(),
            tokenizer,
            config: loaded.config,
            made: loaded.made,
        };
        Ok((prepared, dropped))
    }

    /// Training, validation and test.
    fn parts(
        &self,
        data: &LanguageDataset,
        loaded: &Loaded,
        tokenizer: &TextTokenizer,
    ) -> Result<[TokenizedLanguage; 3], Error> {
        let end = loaded.config["eos_token_id"].as_u64();
        let end = end.and_then(|end| u32::try_from(end).ok());
        let tokens =
            |data: &LanguageDataset| TokenizedLanguage::new(data, tokenizer, &self.template, end);
        let all = tokens(data)?;
        let share = |k: usize| match &self.held_out[k] {
            Some(_) => 0.0,
            None => self.shares[k],
        };
        let split = Split::new(crate::Examples::len(&all), SEED, share(0), share(1))?;
        let other = |file: &Option<PathBuf>, rows: &[usize]| match file {
            Some(file) => tokens(&LanguageDataset::read(file)?),
            None => Ok(all.part(rows)),
        };
        let [validation, test] = &self.held_out;
        Ok([
            all.part(&split.train),
            other(validation, &split.validation)?,
            other(test, &split.test)?,
        ])
    }
}
