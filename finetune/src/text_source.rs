//! A pre-trained model and files of text: what all tasks on text have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lora_pro_core::Error;
use lora_pro_models::{Loaded, Precision, TextTokenizer, load, set_labels};

use crate::examples::Examples;
use crate::fine_tuned::no_tokenizer;
use crate::network::Network;
use crate::task::Task;
use crate::text::Split;

/// Where model and text come from.
#[derive(Clone, Debug, PartialEq)]
pub struct TextSource {
    /// A folder of Hugging Face's layout, or a GGUF file.
    pub model: PathBuf,
    /// How the frozen weights are held.
    pub precision: Precision,
    /// The text.
    pub data: PathBuf,
    /// Such a file to validate on, and one to test on; without, they are parts of `data`.
    pub held_out: [Option<PathBuf>; 2],
    /// The shares of the data for validation and for testing, where they have no files.
    pub shares: [f64; 2],
    /// Texts are cut to so many tokens.
    pub max_length: usize,
}

/// Fixes the split and the start of what the model's files lack.
pub(crate) const SEED: u64 = 0;

impl TextSource {
    /// The usual settings: a fifth of the data to test on, a tenth to validate on.
    pub(crate) fn new(
        model: impl Into<PathBuf>,
        data: impl Into<PathBuf>,
        max_length: usize,
    ) -> Self {
        TextSource {
            model: model.into(),
            precision: Precision::default(),
            data: data.into(),
            held_out: [None, None],
            shares: [0.1, 0.2],
            max_length,
        }
    }

    /// The model, made for `task`, and its tokenizer, cutting at `max_length`.
    pub(crate) fn load(
        &self,
        task: lora_pro_models::Task,
    ) -> Result<(Loaded, TextTokenizer), Error> {
        let loaded = load(&self.model, task, SEED, self.precision)?;
        let tokenizer = loaded.tokenizer.as_ref();
        let tokenizer = tokenizer.ok_or_else(|| no_tokenizer(&self.model))?;
        let tokenizer = tokenizer.with_max_length(self.max_length.min(tokenizer.max_length()))?;
        Ok((loaded, tokenizer))
    }

    /// Training, validation and test: parts of `all`, but for those that have a file to `read`. The
    /// split is the same for every run.
    pub(crate) fn split<E: Examples>(
        &self,
        all: &E,
        part: impl Fn(&E, &[usize]) -> E,
        read: impl Fn(&Path) -> Result<E, Error>,
    ) -> Result<[E; 3], Error> {
        let [validation, test] = &self.held_out;
        let share = |file: &Option<PathBuf>, share| if file.is_some() { 0.0 } else { share };
        let shares = [
            share(validation, self.shares[0]),
            share(test, self.shares[1]),
        ];
        let split = Split::new(all.len(), SEED, shares[0], shares[1])?;
        let other = |file: &Option<PathBuf>, rows: &[usize]| match file {
            Some(file) => read(file),
            None => Ok(part(all, rows)),
        };
        Ok([
            part(all, &split.train),
            other(validation, &split.validation)?,
            other(test, &split.test)?,
        ])
    }

    /// What is ready to be trained; `trained` tells what is, `classes` are the outputs' names.
    pub(crate) fn prepared<E: Examples + 'static>(
        &self,
        name: String,
        trained: &str,
        (loaded, tokenizer): (Loaded, TextTokenizer),
        [train, validation, test]: [E; 3],
        classes: Vec<String>,
    ) -> PreparedText {
        let mut config = loaded.config.clone();
        if !classes.is_empty() {
            set_labels(&mut config, &classes);
        }
        PreparedText {
            task: Task {
                name,
                about: format!("{}; {trained}", describe(&self.model, &loaded)),
                base: Network {
                    model: Arc::from(loaded.model),
                    parameters: loaded.parameters,
                },
                train: Arc::new(train),
                validation: Arc::new(validation),
                test: Arc::new(test),
            },
            classes,
            tokenizer,
            config,
            made: loaded.made,
        }
    }
}

/// A task that is ready, and what belongs to it.
#[derive(Debug)]
pub struct PreparedText {
    /// Network and examples.
    pub task: Task,
    /// The names of the classes, in the order of the outputs; none for scores and language models.
    pub classes: Vec<String>,
    /// The tokenizer, cutting at the task's length.
    pub tokenizer: TextTokenizer,
    /// `config.json` for this task, with the names of the classes.
    pub config: serde_json::Value,
    /// Tensors that the model's files lack and that were made anew.
    pub made: Vec<String>,
}

fn describe(model: &Path, loaded: &Loaded) -> String {
    let tensors = loaded.parameters.tensors().values();
    let count: usize = tensors.map(|tensor| tensor.elem_count()).sum();
    let kind = loaded.config["model_type"].as_str().unwrap_or("model");
    format!(
        "{} ({kind}, {:.1} M parameters)",
        model.display(),
        count as f64 / 1e6
    )
}
