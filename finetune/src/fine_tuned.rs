//! A model with what fine-tuning made of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;
use lora_pro_candle::PeftAdapter;
use lora_pro_candle::bridge::candle_error;
use lora_pro_core::Error;
use lora_pro_models::{
    Input, ModelFiles, Precision, Task, TextTokenizer, TokenRow, find, labels, load,
    read_adapted_config, read_config, set_labels, stated_length,
};

use crate::examples::Examples;
use crate::network::{Network, scalar};
use crate::text::{ChatTemplate, LanguageDataset, UnlabelledText};
use crate::text_source::SEED;
use crate::tokenized_language::TokenizedLanguage;

/// Where a fine-tuned model is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FineTunedSource {
    /// A folder of Hugging Face's layout, a GGUF file, or a name on the hub. Without it, the adapter's
    /// `base_model_name_or_path`.
    pub model: Option<String>,
    /// The folder of an adapter for the model; without it, the model itself was fine-tuned.
    pub adapter: Option<PathBuf>,
    /// How the frozen weights are held.
    pub precision: Precision,
    /// Texts are cut to so many tokens; without it, to the `model_max_length` of the
    /// `tokenizer_config.json` beside the adapter or else the model.
    pub max_length: Option<usize>,
}

/// A model with what fine-tuning made of it: to predict with, and to be written as a folder.
#[derive(Debug)]
pub struct FineTuned {
    /// The model, with its adapter if there is one.
    pub network: Network,
    /// What it tells.
    pub task: Task,
    /// Configuration and tokenizer.
    pub files: ModelFiles,
}

/// What a language model makes of one text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LanguageLoss {
    /// The text's place in its file, from 0.
    pub row: usize,
    /// Mean loss of its tokens.
    pub loss: f64,
    /// Tokens that count.
    pub tokens: usize,
}

/// The weights of heads, by their names in an adapter.
const HEADS: [&str; 2] = ["classifier.weight", "score.weight"];
const WEIGHTS: &str = "model.safetensors";

impl FineTunedSource {
    /// Loads the model. Its classes have the names in the adapter's `model_config.json`, or else in the
    /// model's `config.json`.
    ///
    /// Rejects a model without a head for a task, and an adapter for another model.
    pub fn load(&self) -> Result<FineTuned, Error> {
        let adapter = self.adapter.as_deref();
        let adapter = adapter.map(|run| Ok((run, PeftAdapter::load(run)?)));
        let adapter = adapter.transpose()?;
        let model = match (&self.model, &adapter) {
            (Some(model), _) => model,
            (None, Some((run, adapter))) => base_of(adapter, run)?,
            (None, None) => {
                let (value, expected) = ("none", "named where there is no adapter");
                return Err(Error::invalid("prediction", "model", value, expected));
            }
        };
        let folder = find(model)?;
        match &adapter {
            Some((run, adapter)) => self.of_adapter(&folder, run, adapter),
            None => self.of_model(&folder),
        }
    }

    fn of_model(&self, folder: &Path) -> Result<FineTuned, Error> {
        if folder.join(lora_pro_candle::CONFIG_FILE).exists() && !folder.join(WEIGHTS).exists() {
            return Err(Error::file(folder, "it holds an adapter, not a model"));
        }
        let task = Task::of(&read_config(folder)?);
        let task = task.map_err(|reason| Error::file(folder, reason))?;
        self.of_task(folder, task, None)
    }

    fn of_adapter(
        &self,
        folder: &Path,
        run: &Path,
        adapter: &PeftAdapter,
    ) -> Result<FineTuned, Error> {
        let said = match read_adapted_config(run)? {
            Some(config) => config,
            None => read_config(folder)?,
        };
        let mut saved = adapter.saved();
        let head = saved.find_map(|(name, data)| HEADS.contains(&name).then_some(&data.shape));
        let task = match (head, adapter.config.task_type.as_deref()) {
            (Some(shape), _) => Task::of_outputs(&said, shape.first().copied().unwrap_or(0)),
            (None, Some("CAUSAL_LM")) => Ok(Task::LanguageModel),
            (None, _) => Task::of(&said),
        };
        let task = task.map_err(|reason| Error::file(run, reason))?;
        let mut tuned = self.of_task(folder, task, Some((run, adapter)))?;
        if let (Task::Classify(classes), Some(names)) = (task, labels(&said))
            && names.len() == classes
        {
            set_labels(&mut tuned.files.config, &names);
        }
        Ok(tuned)
    }

    fn of_task(
        &self,
        folder: &Path,
        task: Task,
        adapter: Option<(&Path, &PeftAdapter)>,
    ) -> Result<FineTuned, Error> {
        let loaded = load(folder, task, SEED, self.precision)?;
        let given = |name: &str| {
            let mut saved = adapter.into_iter().flat_map(|(_, adapter)| adapter.saved());
            saved.any(|(saved, _)| saved == name)
        };
        if let Some(name) = loaded.made.iter().find(|name| !given(name)) {
            let reason = match adapter {
                Some(_) => format!("tensor `{name}` is missing, and the adapter has none either"),
                None => format!("tensor `{name}` is missing: the model was not fine-tuned"),
            };
            return Err(Error::file(folder, reason));
        }
        let base = Network {
            model: Arc::from(loaded.model),
            parameters: loaded.parameters,
        };
        let tokenizer = loaded.tokenizer.ok_or_else(|| no_tokenizer(folder))?;
        let run = adapter.map(|(run, _)| run);
        Ok(FineTuned {
            network: match adapter {
                Some((_, adapter)) => base.adapted(adapter)?,
                None => base,
            },
            task,
            files: ModelFiles {
                config: loaded.config,
                tokenizer: self.cutting(tokenizer, run, folder)?,
                source: folder.into(),
            },
        })
    }

    /// The tokenizer with the length that texts are cut to, which has to be within the model's.
    fn cutting(
        &self,
        tokenizer: TextTokenizer,
        run: Option<&Path>,
        folder: &Path,
    ) -> Result<TextTokenizer, Error> {
        let mut length = self.max_length;
        for folder in run.into_iter().chain([folder]) {
            if length.is_none() {
                length = stated_length(folder)?;
            }
        }
        let most = tokenizer.max_length();
        tokenizer.with_max_length(length.unwrap_or(most).min(most))
    }
}

impl FineTuned {
    /// The names of the classes; none for scores and language models.
    pub fn classes(&self) -> Vec<String> {
        match self.task {
            Task::Classify(_) => labels(&self.files.config).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// The model's outputs for each text: the logits of its classes, or its score. `batch` texts go
    /// through the model at once; `told` hears how many are done.
    pub fn outputs(
        &self,
        texts: &[UnlabelledText],
        batch: usize,
        told: &dyn Fn(usize),
    ) -> Result<Vec<Vec<f32>>, Error> {
        let tokenizer = &self.files.tokenizer;
        let tokens = texts
            .iter()
            .map(|text| tokenizer.encode(&text.first, text.second.as_deref()));
        let tokens: Vec<TokenRow> = tokens.collect::<Result<_, _>>()?;
        // Texts of similar lengths need less padding.
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&row| tokens[row].len());
        let mut outputs = vec![Vec::new(); tokens.len()];
        for (done, rows) in order.chunks(batch.max(1)).enumerate() {
            let some: Vec<&TokenRow> = rows.iter().map(|&row| &tokens[row]).collect();
            let output = self
                .network
                .forward(&Input::Tokens(tokenizer.batch(&some)?))?;
            let numbers = output.to_dtype(DType::F32).and_then(|all| all.to_vec2());
            for (&row, numbers) in rows.iter().zip(numbers.map_err(candle_error)?) {
                outputs[row] = numbers;
            }
            told((batch * done + rows.len()).min(tokens.len()));
        }
        Ok(outputs)
    }

    /// What a language model makes of each text of which anything is left within its length; `told`
    /// hears how many are done.
    pub fn language(
        &self,
        data: &LanguageDataset,
        told: &dyn Fn(usize),
    ) -> Result<Vec<LanguageLoss>, Error> {
        let end = self.files.config["eos_token_id"].as_u64();
        let end = end.and_then(|end| u32::try_from(end).ok());
        let template = ChatTemplate::chat_ml();
        let texts = TokenizedLanguage::new(data, &self.files.tokenizer, &template, end)?;
        let one = |index: usize| {
            let batch = texts.batch(&[index as u32])?;
            let outcome = self.network.outcome(&batch);
            let loss = outcome.and_then(|outcome| scalar(&outcome.loss));
            told(index + 1);
            Ok(LanguageLoss {
                row: texts.number(index),
                loss: loss.map_err(candle_error)?,
                tokens: batch.target.count(),
            })
        };
        (0..texts.len()).map(one).collect()
    }

    /// Writes it as a folder of Hugging Face's layout, the adapter merged.
    ///
    /// Rejects a folder that is not empty.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let merged = self.network.merged()?;
        self.files.save_new_model(&merged.parameters, folder)
    }
}

/// What an adapter says of its frozen network.
pub fn base_of<'a>(adapter: &'a PeftAdapter, run: &Path) -> Result<&'a str, Error> {
    let base = adapter.config.base_model_name_or_path.as_deref();
    let base = base.filter(|base| !base.is_empty()).ok_or_else(|| {
        let reason = "it has no base_model_name_or_path: name the model that it is for";
        Error::file(run.join(lora_pro_candle::CONFIG_FILE), reason)
    })?;
    match run.join(base).is_file() {
        true => Err(Error::file(
            run,
            format!("its frozen network is {base} beside it, made of numbers: it takes no text"),
        )),
        false => Ok(base),
    }
}

/// What is to be said of a model that takes text and has no tokenizer.
pub(crate) fn no_tokenizer(model: &Path) -> Error {
    Error::file(model, "it has no tokenizer.json, but the data are text")
}
