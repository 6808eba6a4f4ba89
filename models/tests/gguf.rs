//! A tiny model written as a GGUF file, as llama.cpp would, and read again.

use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use lora_pro_models::{Loaded, Parameters, Precision, Task, load};

/// Tensors of the tiny Llama in `data/`, whose numbers of heads and sizes the metadata repeat.
fn original() -> Parameters {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/llama/model.safetensors");
    Parameters::load(&file).unwrap()
}

/// llama.cpp's names and order of rows.
fn converted(name: &str, tensor: &Tensor) -> (String, QTensor) {
    let heads = match name {
        name if name.contains("q_proj") => 4,
        name if name.contains("k_proj") => 2,
        _ => 0,
    };
    let tensor = match heads {
        0 => tensor.clone(),
        _ => {
            let (m, n) = tensor.dims2().unwrap();
            let halves = tensor.reshape((heads, 2, m / heads / 2, n)).unwrap();
            halves.transpose(1, 2).unwrap().reshape((m, n)).unwrap()
        }
    };
    let renamed = [
        ("model.layers.", "blk."),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let name = renamed
        .iter()
        .fold(name.to_string(), |name, (from, to)| name.replace(from, to));
    let tensor = QTensor::quantize(&tensor.contiguous().unwrap(), GgmlDType::F32).unwrap();
    (name, tensor)
}

fn metadata() -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::String(text.into());
    let texts = |all: &[&str]| Value::Array(all.iter().map(|one| text(one)).collect());
    let tokens = ["<end>", "a", "b", "Ġ", "Ġa", "ab", "1", "2"];
    let kinds = tokens.map(|one| Value::I32(if one == "<end>" { 3 } else { 1 }));
    vec![
        ("general.architecture", text("llama")),
        ("llama.block_count", Value::U32(2)),
        ("llama.context_length", Value::U32(64)),
        ("llama.embedding_length", Value::U32(16)),
        ("llama.feed_forward_length", Value::U32(24)),
        ("llama.attention.head_count", Value::U32(4)),
        ("llama.attention.head_count_kv", Value::U32(2)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.tokens", texts(&tokens)),
        ("tokenizer.ggml.token_type", Value::Array(kinds.to_vec())),
        ("tokenizer.ggml.merges", texts(&["Ġ a", "a b"])),
        ("tokenizer.ggml.eos_token_id", Value::U32(0)),
    ]
}

fn written(folder: &Path, metadata: &[(&str, Value)]) -> PathBuf {
    let tensors = original();
    let tensors: Vec<_> = tensors
        .tensors()
        .iter()
        .map(|(name, tensor)| converted(name, tensor))
        .collect();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, one)| (name.as_str(), one))
        .collect();
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let path = folder.join("tiny.gguf");
    write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
    path
}

fn read(path: &Path) -> Result<Loaded, String> {
    load(path, Task::LanguageModel, 0, Precision::F32).map_err(|error| error.to_string())
}

#[test]
fn a_file_gives_the_tensors_and_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), &metadata());
    let loaded = read(folder.path()).unwrap();
    assert!(loaded.made.is_empty() && loaded.unused.is_empty());
    let (expected, found) = (original(), loaded.parameters);
    assert_eq!(expected.tensors().len(), found.tensors().len());
    for (name, tensor) in expected.tensors() {
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(
            numbers(tensor),
            numbers(found.tensor(name).unwrap()),
            "{name}"
        );
    }
    let tokenizer = loaded.tokenizer.unwrap();
    let tokens = tokenizer.encode("ab a12<end>", None).unwrap();
    assert_eq!(tokens.ids, [5, 4, 6, 7, 0]);
    assert_eq!(tokenizer.decode(&tokens.ids).unwrap(), "ab a12");
}

#[test]
fn what_is_not_supported_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "general.architecture",
            "gpt9",
            "general.architecture is `gpt9`",
        ),
        ("tokenizer.ggml.pre", "other", "the pre-tokenizer `other`"),
        (
            "llama.rope.scaling.type",
            "yarn",
            "llama.rope.scaling.type is `yarn`",
        ),
        (
            "llama.block_count",
            "two",
            "`llama.block_count` in its metadata is no whole number",
        ),
    ];
    for (key, value, expected) in cases {
        let mut metadata = metadata();
        metadata.retain(|(other, _)| *other != key);
        metadata.push((key, Value::String(value.into())));
        let error = read(&written(folder.path(), &metadata)).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("tiny.gguf"), "{error}");
    }
}

#[test]
fn a_damaged_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut metadata = metadata();
    metadata.push(("general.alignment", Value::U32(0)));
    assert!(
        read(&written(folder.path(), &metadata))
            .unwrap_err()
            .contains("damaged")
    );

    metadata.pop();
    let path = written(folder.path(), &metadata);
    let whole = std::fs::read(&path).unwrap();
    for length in (0..whole.len() - 64).step_by(97) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains("tiny.gguf"), "{length}: {error}");
    }
}
