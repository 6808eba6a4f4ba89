//! Models to files: a folder of Hugging Face's layout.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::DType;
use lora_pro_core::{Error, write_atomically};
use serde_json::{Map, Value, json};

use crate::files::{CONFIG, TOKENIZER, WEIGHTS, read_json};
use crate::parameters::Parameters;
use crate::text::TextTokenizer;

/// The configuration beside an adapter. It is not called `config.json`: with that name, transformers
/// takes a folder for a whole model.
const ADAPTED_CONFIG: &str = "model_config.json";

/// The tokenizer's settings.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// What transformers may look for beside them.
const EXTRAS: [&str; 8] = [
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
];

/// What stands beside a model's tensors in a folder of Hugging Face's layout.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// `config.json`.
    pub config: Value,
    /// The tokenizer, which cuts texts to the length that is written down.
    pub tokenizer: TextTokenizer,
    /// The folder or the GGUF file that the model was loaded from: the tokenizer's files are copied
    /// from there.
    pub source: PathBuf,
}

impl ModelFiles {
    /// Writes what belongs beside an adapter into its folder, which is made if need be: the
    /// configuration as `model_config.json`, and the tokenizer's files with its length as
    /// `model_max_length`.
    pub fn save_for_adapter(&self, folder: &Path) -> Result<(), Error> {
        self.save_tokenizer(folder)?;
        write_json(&folder.join(ADAPTED_CONFIG), &self.config)
    }

    fn save_tokenizer(&self, folder: &Path) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        let source = self.folder();
        for name in EXTRAS {
            let from = source.join(name);
            if from.is_file() {
                copy(&from, &folder.join(name))?;
            }
        }
        let tokenizer = source.join(TOKENIZER);
        match tokenizer.is_file() {
            true => copy(&tokenizer, &folder.join(TOKENIZER))?,
            false => write_atomically(&folder.join(TOKENIZER), self.tokenizer.json()?.as_bytes())?,
        }
        write_json(&folder.join(TOKENIZER_CONFIG), &self.tokenizer_config()?)
    }

    /// Writes a whole model into `folder`, which is made if need be: `config.json`,
    /// `model.safetensors` and the tokenizer's files.
    pub fn save_model(&self, parameters: &Parameters, folder: &Path) -> Result<(), Error> {
        let mut config = self.config.clone();
        if let (Some(config), Some(dtype)) = (config.as_object_mut(), dtype(parameters)) {
            // The name that transformers had for it before its version 5.
            config.remove("torch_dtype");
            config.insert("dtype".into(), dtype.into());
        }
        self.save_tokenizer(folder)?;
        write_json(&folder.join(CONFIG), &config)?;
        parameters.save(&folder.join(WEIGHTS))
    }

    /// As [`ModelFiles::save_model`], all at once: an interruption leaves no half of a model.
    ///
    /// Rejects a folder that is not empty.
    pub fn save_new_model(&self, parameters: &Parameters, folder: &Path) -> Result<(), Error> {
        check_new(folder)?;
        let fail = |error| Error::file(folder, error);
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = format!(".{name}.{}.tmp", std::process::id());
        let unfinished = folder.with_file_name(unfinished);
        let saved = self.save_model(parameters, &unfinished);
        let saved = saved.and_then(|()| fs::rename(&unfinished, folder).map_err(fail));
        if saved.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_dir_all(&unfinished);
        }
        saved
    }

    fn folder(&self) -> &Path {
        match self.source.is_file() {
            true => self.source.parent().unwrap_or(Path::new("")),
            false => &self.source,
        }
    }

    fn tokenizer_config(&self) -> Result<Map<String, Value>, Error> {
        let path = self.folder().join(TOKENIZER_CONFIG);
        let mut config = match path.is_file() {
            true => read_json(&path)?,
            false => self.special_tokens(),
        };
        config.insert(
            "model_max_length".into(),
            self.tokenizer.max_length().into(),
        );
        Ok(config)
    }

    /// The settings of a tokenizer that is all in `tokenizer.json`.
    fn special_tokens(&self) -> Map<String, Value> {
        let mut config = Map::new();
        if !self.folder().join(TOKENIZER).is_file() {
            config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        }
        for role in ["bos_token", "eos_token", "pad_token"] {
            let id = self.config[format!("{role}_id")].as_u64();
            let id = id.and_then(|id| u32::try_from(id).ok());
            let token = id.and_then(|id| self.tokenizer.tokenizer().id_to_token(id));
            config.extend(token.map(|token| (role.to_string(), token.into())));
        }
        config
    }
}

/// Rejects what is there and is no empty folder.
pub fn check_new(folder: &Path) -> Result<(), Error> {
    if !folder.exists() {
        return Ok(());
    }
    let mut entries = fs::read_dir(folder).map_err(|error| Error::file(folder, error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::file(
            folder,
            "the folder is not empty: a model is written to a new one",
        )),
    }
}

/// The configuration beside an adapter, if there is one ([`ModelFiles::save_for_adapter`]).
pub fn read_adapted_config(folder: &Path) -> Result<Option<Value>, Error> {
    let path = folder.join(ADAPTED_CONFIG);
    match path.is_file() {
        true => read_json(&path).map(Some),
        false => Ok(None),
    }
}

/// The length to which a folder's tokenizer says that texts are cut.
pub fn stated_length(folder: &Path) -> Result<Option<usize>, Error> {
    let path = folder.join(TOKENIZER_CONFIG);
    if !path.is_file() {
        return Ok(None);
    }
    let config: Value = read_json(&path)?;
    // A number beyond all lengths stands for none.
    let length = config["model_max_length"].as_u64();
    Ok(length.and_then(|length| usize::try_from(length).ok()))
}

/// The type of the largest tensor, by torch's name.
fn dtype(parameters: &Parameters) -> Option<&'static str> {
    let tensors = parameters.tensors().values();
    let largest = tensors.max_by_key(|tensor| tensor.elem_count())?;
    Some(match largest.dtype() {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::F64 => "float64",
        _ => "float32",
    })
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let bytes = fs::read(from).map_err(|error| Error::file(from, error))?;
    write_atomically(to, &bytes)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| Error::file(path, error))?;
    write_atomically(path, &text)
}
