//! Models from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use lora_pro_core::Error;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::bert::Bert;
use crate::files::{CONFIG, Precision, TOKENIZER, read_folder, read_json};
use crate::gguf::{self, Gguf};
use crate::head::{labels, set_labels, usual_labels};
use crate::llama::Llama;
use crate::model::Model;
use crate::parameters::Parameters;
use crate::pretrained::{Expected, Pretrained};
use crate::text::TextTokenizer;
use crate::vit::Vit;

/// What a model is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Tell which of so many classes; N x classes logits.
    Classify(usize),
    /// Tell a number; N x 1.
    Regress,
    /// Tell the next token.
    LanguageModel,
}

/// A model from files.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Box<dyn Model>,
    /// Its numbers, all frozen.
    pub parameters: Parameters,
    /// The tokenizer, which cuts texts to the model's length; `None` where there are no texts.
    pub tokenizer: Option<TextTokenizer>,
    /// `config.json`, changed to what the task makes of the model: what belongs beside the tensors
    /// when they are saved.
    pub config: Value,
    /// Tensors that the files lack, which were made anew: weights normal with the configuration's
    /// `initializer_range`, biases zero.
    pub made: Vec<String>,
    /// Tensors of the files that the model has no use for.
    pub unused: Vec<String>,
}

/// Loads a model from a folder of Hugging Face's layout: `config.json`; `model.safetensors`, or its
/// shards and `model.safetensors.index.json`; `tokenizer.json`. Or from a GGUF file, or a folder with
/// one, whose tokenizer is read from the file unless there is a `tokenizer.json`. What the files lack
/// of the task's head follows from `seed`.
///
/// Rejects what is missing, damaged, of another shape than the configuration says, or of a kind of
/// model that this crate does not have, and names it.
pub fn load(
    folder: impl AsRef<Path>,
    task: Task,
    seed: u64,
    precision: Precision,
) -> Result<Loaded, Error> {
    let folder = folder.as_ref();
    match gguf::find(folder)? {
        Some(file) => load_gguf(file, task, seed, precision),
        None => load_folder(folder, task, seed, precision),
    }
}

/// The configuration of a model, as [`load`] finds it.
pub fn read_config(folder: &Path) -> Result<Value, Error> {
    match gguf::find(folder)? {
        Some(file) => Gguf::open(file)?.config(),
        None => read_json(&folder.join(CONFIG)),
    }
}

fn load_folder(
    folder: &Path,
    task: Task,
    seed: u64,
    precision: Precision,
) -> Result<Loaded, Error> {
    let path = folder.join(CONFIG);
    let config: Value = read_json(&path)?;
    let model = architecture(&config, task).map_err(|reason| Error::file(&path, reason))?;
    let found = read_folder(folder, precision)?;
    let tokenizer = tokenizer(&folder.join(TOKENIZER), &config)?;
    finish(folder, (model, config, tokenizer), found, task, seed)
}

fn load_gguf(file: PathBuf, task: Task, seed: u64, precision: Precision) -> Result<Loaded, Error> {
    let mut file = Gguf::open(file)?;
    let config = file.config()?;
    let fail = |reason| Error::file(file.path(), reason);
    let model = architecture(&config, task).map_err(fail)?;
    let beside = file.path().with_file_name(TOKENIZER);
    let tokenizer = match tokenizer(&beside, &config)? {
        Some(tokenizer) => tokenizer,
        None => {
            let json = file.tokenizer()?.to_string();
            let own =
                Tokenizer::from_bytes(json).map_err(|error| Error::file(file.path(), error))?;
            let (most, pad) = limits(&config);
            TextTokenizer::new(own, most, pad)?
        }
    };
    let found = file.tensors(&config, precision)?;
    finish(
        file.path(),
        (model, config, Some(tokenizer)),
        found,
        task,
        seed,
    )
}

/// A model out of what was found in `path`.
fn finish(
    path: &Path,
    (model, mut config, tokenizer): (Box<dyn Pretrained>, Value, Option<TextTokenizer>),
    found: BTreeMap<String, Tensor>,
    task: Task,
    seed: u64,
) -> Result<Loaded, Error> {
    let range = config["initializer_range"].as_f64().unwrap_or(0.02);
    let Tensors { all, made, unused } =
        assemble(&*model, found, range, seed).map_err(|reason| Error::file(path, reason))?;
    describe(&mut config, task);
    Ok(Loaded {
        model,
        parameters: Parameters::new(all),
        tokenizer,
        config,
        made,
        unused,
    })
}

/// The kinds of models that there are, as `config.json` names them.
const KINDS: &str = "bert, llama, mistral, qwen2 and vit";

fn architecture(config: &Value, task: Task) -> Result<Box<dyn Pretrained>, String> {
    let kind = config["model_type"].as_str().unwrap_or_default();
    let parse_error = |error: serde_json::Error| error.to_string();
    match (kind, task) {
        ("bert", Task::Classify(_) | Task::Regress) => {
            let config = serde_json::from_value(config.clone()).map_err(parse_error)?;
            Ok(Box::new(Bert::new(config, outputs(task))?))
        }
        ("llama" | "mistral" | "qwen2", _) => {
            let config = serde_json::from_value(config.clone()).map_err(parse_error)?;
            let outputs = (task != Task::LanguageModel).then_some(outputs(task));
            Ok(Box::new(Llama::new(config, outputs)?))
        }
        ("vit", Task::Classify(_) | Task::Regress) => {
            let config = serde_json::from_value(config.clone()).map_err(parse_error)?;
            Ok(Box::new(Vit::new(config, outputs(task))?))
        }
        ("bert" | "vit", Task::LanguageModel) => Err(format!(
            "a model of the kind `{kind}` is no language model: use it to classify or to regress"
        )),
        ("", _) => Err("it has no model_type".into()),
        _ => Err(format!(
            "model_type is `{kind}`, but the supported ones are {KINDS}"
        )),
    }
}

fn outputs(task: Task) -> usize {
    match task {
        Task::Classify(classes) => classes,
        Task::Regress | Task::LanguageModel => 1,
    }
}

/// What transformers needs to know of the head. Names of the outputs are kept where they fit.
fn describe(config: &mut Value, task: Task) {
    let kind = config["model_type"].as_str().unwrap_or_default();
    let class = match kind {
        "bert" => "BertForSequenceClassification",
        "mistral" => "MistralForSequenceClassification",
        "qwen2" => "Qwen2ForSequenceClassification",
        "vit" => "ViTForImageClassification",
        _ => "LlamaForSequenceClassification",
    };
    let (class, problem) = match task {
        Task::LanguageModel => (class.replace("SequenceClassification", "CausalLM"), None),
        Task::Regress => (class.into(), Some("regression")),
        Task::Classify(_) => (class.into(), Some("single_label_classification")),
    };
    if let Some(config) = config.as_object_mut() {
        config.insert("architectures".into(), json!([class]));
        config.extend(problem.map(|problem| ("problem_type".into(), problem.into())));
    }
    if task != Task::LanguageModel {
        let fit = |labels: &Vec<String>| labels.len() == outputs(task);
        let labels = labels(config).filter(fit);
        set_labels(
            config,
            &labels.unwrap_or_else(|| usual_labels(outputs(task))),
        );
    }
}

/// The tensors of a model, and what came of the files.
struct Tensors {
    all: BTreeMap<String, Tensor>,
    made: Vec<String>,
    unused: Vec<String>,
}

/// The tensors that a model expects, out of those that were found.
fn assemble(
    model: &dyn Pretrained,
    found: BTreeMap<String, Tensor>,
    range: f64,
    seed: u64,
) -> Result<Tensors, String> {
    let expected = model.shapes().0;
    let (mut all, mut unused) = (BTreeMap::new(), Vec::new());
    for (in_file, tensor) in found {
        let name = model.name(&in_file);
        let Some(Expected { shape, .. }) = expected.get(&name) else {
            unused.push(in_file);
            continue;
        };
        if tensor.dims() != shape {
            let found = tensor.dims();
            return Err(format!(
                "tensor `{in_file}` is {found:?}, but by the configuration and the task it is {shape:?}"
            ));
        }
        if all.insert(name.clone(), tensor).is_some() {
            return Err(format!("tensor `{name}` is there under two names"));
        }
    }
    let missing = expected.iter().filter(|(name, _)| !all.contains_key(*name));
    let (optional, required): (Vec<_>, Vec<_>) = missing.partition(|(_, one)| one.optional);
    if let Some((first, _)) = required.first() {
        let others = match required.len() {
            1 => String::new(),
            count => format!(", and so are {} others", count - 1),
        };
        return Err(format!("tensor `{first}` is missing{others}"));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let made = optional.iter().map(|(name, _)| name.to_string()).collect();
    let drawn = optional
        .iter()
        .map(|(name, one)| Ok((name.to_string(), initial(&one.shape, range, &mut random)?)))
        .collect::<Result<Vec<_>, String>>()?;
    all.extend(drawn);
    Ok(Tensors { all, made, unused })
}

/// Weights are normal, biases zero.
fn initial(shape: &[usize], range: f64, random: &mut ChaCha8Rng) -> Result<Tensor, String> {
    let tensor = match shape {
        [_] => Tensor::zeros(shape, DType::F32, &Device::Cpu),
        _ => {
            let normal = Normal::new(0.0, range as f32);
            let normal = normal.map_err(|_| format!("initializer_range is {range}"))?;
            let count = shape.iter().product();
            let values: Vec<f32> = normal.sample_iter(random).take(count).collect();
            Tensor::from_vec(values, shape, &Device::Cpu)
        }
    };
    tensor.map_err(|error| error.to_string())
}

/// The tokenizer of a folder, if there is one.
fn tokenizer(path: &Path, config: &Value) -> Result<Option<TextTokenizer>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let (most, pad) = limits(config);
    TextTokenizer::load(path, most, pad).map(Some)
}

/// Most tokens of a text, and what fills rows.
fn limits(config: &Value) -> (usize, u32) {
    let most = config["max_position_embeddings"].as_u64();
    let most = most.and_then(|most| usize::try_from(most).ok());
    let pad = config["pad_token_id"].as_u64();
    let pad = pad.and_then(|pad| u32::try_from(pad).ok());
    (most.unwrap_or(512), pad.unwrap_or(0))
}
