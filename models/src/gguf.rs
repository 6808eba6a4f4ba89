//! Llama-style models from GGUF files, as llama.cpp writes them:
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use candle_core::{DType, Device, Tensor};
use lora_pro_core::Error;
use serde_json::{Value as Json, json};

use crate::files::{CONFIG, Precision};

/// The GGUF file that `path` is, or that is the only one in the folder `path`; `None` in a folder of
/// Hugging Face's layout.
///
/// Rejects a folder with several.
pub(crate) fn find(path: &Path) -> Result<Option<PathBuf>, Error> {
    let is_gguf = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "gguf")
    };
    if path.is_file() && is_gguf(path) {
        return Ok(Some(path.into()));
    }
    if !path.is_dir() || path.join(CONFIG).exists() {
        return Ok(None);
    }
    let entries = std::fs::read_dir(path).map_err(|error| Error::file(path, error))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_gguf(path))
        .collect();
    match files.len() {
        0 | 1 => Ok(files.pop()),
        count => Err(Error::file(
            path,
            format!("it has {count} GGUF files: name the one that is meant"),
        )),
    }
}

/// An open file whose header has been read.
#[derive(Debug)]
pub(crate) struct Gguf {
    path: PathBuf,
    file: BufReader<File>,
    content: Content,
}

impl Gguf {
    /// Reads the header.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        let fail = |reason: String| Error::file(&path, reason);
        let file = File::open(&path).map_err(|error| Error::file(&path, error))?;
        let length = file
            .metadata()
            .map_err(|error| Error::file(&path, error))?
            .len();
        let mut file = BufReader::new(file);
        // The reader divides by the file's alignment, which may be 0.
        let content = catch_unwind(AssertUnwindSafe(|| Content::read(&mut file)));
        let content = content.map_err(|_| fail("its header is damaged".into()))?;
        let content = content.map_err(|error| fail(format!("damaged or incomplete: {error}")))?;
        check_sizes(&content, length).map_err(&fail)?;
        Ok(Gguf {
            file,
            content,
            path,
        })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What `config.json` would say.
    pub(crate) fn config(&self) -> Result<Json, Error> {
        self.describe()
            .map_err(|reason| Error::file(&self.path, reason))
    }

    fn describe(&self) -> Result<Json, String> {
        let architecture = self.text("general.architecture")?;
        if architecture != "llama" {
            return Err(format!(
                "general.architecture is `{architecture}`, but the supported one is llama"
            ));
        }
        if let Ok(kind) = self.text("llama.rope.scaling.type")
            && kind != "none"
        {
            return Err(format!(
                "llama.rope.scaling.type is `{kind}`, but only `none` is supported in a GGUF file"
            ));
        }
        if self.content.tensor_infos.contains_key("rope_freqs.weight") {
            let reason = "its tensor `rope_freqs.weight` scales the rotary embeddings, which is not \
                          supported in a GGUF file: use the model's safetensors";
            return Err(reason.into());
        }
        let number = |key: &str| self.number(&format!("llama.{key}"));
        let (width, heads) = (number("embedding_length")?, number("attention.head_count")?);
        let table = self.content.tensor_infos.get("token_embd.weight");
        let table = table.ok_or("tensor `token_embd.weight` is missing")?;
        let real = |key: &str| self.real(&format!("llama.{key}"));
        let token = |key: &str| self.number(&format!("tokenizer.ggml.{key}_token_id")).ok();
        Ok(json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": width,
            "num_hidden_layers": number("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": number("attention.head_count_kv").unwrap_or(heads),
            "head_dim": number("attention.key_length").unwrap_or(width / heads.max(1)),
            "intermediate_size": number("feed_forward_length")?,
            "vocab_size": table.shape.dims().first(),
            "max_position_embeddings": number("context_length")?,
            "rms_norm_eps": real("attention.layer_norm_rms_epsilon")?,
            "rope_theta": real("rope.freq_base").unwrap_or(1e4),
            "hidden_act": "silu",
            "tie_word_embeddings": !self.content.tensor_infos.contains_key("output.weight"),
            "bos_token_id": token("bos"),
            "eos_token_id": token("eos"),
            "pad_token_id": token("padding"),
        }))
    }

    /// All tensors under Hugging Face's names, dequantised; with [`Precision::AsStored`] quantised ones
    /// become f16.
    pub(crate) fn tensors(
        &mut self,
        config: &Json,
        precision: Precision,
    ) -> Result<BTreeMap<String, Tensor>, Error> {
        let heads = |key: &str| config[key].as_u64().unwrap_or(0) as usize;
        let heads = [heads("num_attention_heads"), heads("num_key_value_heads")];
        let Gguf {
            path,
            file,
            content,
        } = self;
        let read = |(name, info): (&String, &TensorInfo)| {
            let mut read = || -> candle_core::Result<Tensor> {
                let tensor = content.tensor(file, name, &Device::Cpu)?;
                let tensor = tensor.dequantize(&Device::Cpu)?;
                let tensor = match name.as_str() {
                    name if name.ends_with("attn_q.weight") => interleaved(&tensor, heads[0])?,
                    name if name.ends_with("attn_k.weight") => interleaved(&tensor, heads[1])?,
                    _ => tensor,
                };
                match (precision, info.ggml_dtype) {
                    (Precision::F32, _) | (_, GgmlDType::F32) => Ok(tensor),
                    (_, GgmlDType::BF16) => tensor.to_dtype(DType::BF16),
                    _ => tensor.to_dtype(DType::F16),
                }
            };
            let tensor = read();
            let tensor = tensor.map_err(|error| {
                Error::file(path.as_path(), format!("tensor `{name}`: {error}"))
            })?;
            Ok((hugging_face_name(name), tensor))
        };
        content.tensor_infos.iter().map(read).collect()
    }

    /// What `tokenizer.json` would say.
    pub(crate) fn tokenizer(&self) -> Result<Json, Error> {
        self.describe_tokenizer()
            .map_err(|reason| Error::file(&self.path, reason))
    }

    fn describe_tokenizer(&self) -> Result<Json, String> {
        let beside = "put the model's tokenizer.json beside the file";
        let (model, pre) = (
            self.text("tokenizer.ggml.model")?,
            self.text("tokenizer.ggml.pre")?,
        );
        if (model, pre) != ("gpt2", "smollm") {
            return Err(format!(
                "its tokenizer is of the kind `{model}` with the pre-tokenizer `{pre}`, but the \
                 supported one is gpt2 with smollm: {beside}"
            ));
        }
        if let Some(Value::Bool(true)) = self.content.metadata.get("tokenizer.ggml.add_bos_token") {
            return Err(format!(
                "tokenizer.ggml.add_bos_token is true, but only false is supported: {beside}"
            ));
        }
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let kinds = self.list("tokenizer.ggml.token_type")?;
        let special = tokens
            .iter()
            .zip(0..)
            .zip(kinds)
            .filter_map(|((text, id), kind)| {
                let is_control = matches!(kind, Value::I32(CONTROL) | Value::U32(3));
                is_control.then(|| {
                    json!({"id": id, "content": text, "special": true, "single_word": false,
                       "lstrip": false, "rstrip": false, "normalized": false})
                })
            });
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false,
                                "trim_offsets": true, "use_regex": true});
        let vocabulary: serde_json::Map<String, Json> = tokens
            .iter()
            .zip(0..)
            .map(|(text, id)| (text.to_string(), json!(id)))
            .collect();
        Ok(json!({
            "version": "1.0",
            "added_tokens": special.collect::<Vec<Json>>(),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true}, byte_level,
            ]},
            "decoder": byte_level,
            "model": {"type": "BPE", "vocab": vocabulary,
                      "merges": self.texts("tokenizer.ggml.merges")?},
        }))
    }

    fn value(&self, key: &str) -> Result<&Value, String> {
        let value = self.content.metadata.get(key);
        value.ok_or_else(|| format!("its metadata have no `{key}`"))
    }

    fn number(&self, key: &str) -> Result<u64, String> {
        let value = self.value(key)?.to_u64();
        value.map_err(|_| format!("`{key}` in its metadata is no whole number"))
    }

    fn real(&self, key: &str) -> Result<f32, String> {
        let value = self.value(key)?.to_f32();
        value.map_err(|_| format!("`{key}` in its metadata is no number"))
    }

    fn text(&self, key: &str) -> Result<&str, String> {
        let value = self.value(key)?.to_string();
        let value = value.map_err(|_| format!("`{key}` in its metadata is no text"))?;
        Ok(value)
    }

    fn list(&self, key: &str) -> Result<&[Value], String> {
        let value = self.value(key)?.to_vec();
        let value = value.map_err(|_| format!("`{key}` in its metadata is no list"))?;
        Ok(value)
    }

    fn texts(&self, key: &str) -> Result<Vec<&str>, String> {
        let texts = self.list(key)?.iter().map(|value| match value {
            Value::String(text) => Ok(text.as_str()),
            _ => Err(format!("`{key}` in its metadata is no list of texts")),
        });
        texts.collect()
    }
}

/// The kind of a token that is no text, such as the end of a text.
const CONTROL: i32 = 3;

/// Rejects tensors that together need more bytes than the file has: dequantising would take memory out
/// of proportion.
fn check_sizes(content: &Content, length: u64) -> Result<(), String> {
    let mut total = 0_u64;
    for (name, info) in &content.tensor_infos {
        let dims = info.shape.dims();
        let count = dims
            .iter()
            .try_fold(1_u64, |count, &dim| count.checked_mul(dim as u64));
        let bytes = count.and_then(|count| {
            let blocks = count / info.ggml_dtype.block_size() as u64;
            blocks.checked_mul(info.ggml_dtype.type_size() as u64)
        });
        total = bytes
            .and_then(|bytes| total.checked_add(bytes))
            .filter(|&total| total <= length)
            .ok_or_else(|| {
                format!(
                    "damaged or incomplete: up to tensor `{name}`, {dims:?}, its tensors need more than \
                     the file's {length} bytes"
                )
            })?;
    }
    Ok(())
}

/// Rows of a map to queries or keys as Hugging Face has them: llama.cpp puts the two rows of a rotated
/// pair side by side, Hugging Face puts them into the two halves of a head.
fn interleaved(weight: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let (m, n) = weight.dims2()?;
    if heads == 0 || !m.is_multiple_of(2 * heads) {
        candle_core::bail!("it has {m} rows, but they must be pairs of rows for {heads} heads");
    }
    let pairs = weight.reshape((heads, m / heads / 2, 2, n))?;
    pairs.transpose(1, 2)?.reshape((m, n))
}

/// `blk.0.attn_q.weight` to `model.layers.0.self_attn.q_proj.weight`; other names stay.
fn hugging_face_name(name: &str) -> String {
    let part = |part: &str| {
        Some(match part {
            "attn_norm.weight" => "input_layernorm.weight",
            "attn_q.weight" => "self_attn.q_proj.weight",
            "attn_k.weight" => "self_attn.k_proj.weight",
            "attn_v.weight" => "self_attn.v_proj.weight",
            "attn_output.weight" => "self_attn.o_proj.weight",
            "ffn_norm.weight" => "post_attention_layernorm.weight",
            "ffn_gate.weight" => "mlp.gate_proj.weight",
            "ffn_up.weight" => "mlp.up_proj.weight",
            "ffn_down.weight" => "mlp.down_proj.weight",
            _ => return None,
        })
    };
    let in_layer = || {
        let (index, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        Some(format!("model.layers.{index}.{}", part(rest)?))
    };
    match name {
        "token_embd.weight" => "model.embed_tokens.weight".into(),
        "output_norm.weight" => "model.norm.weight".into(),
        "output.weight" => "lm_head.weight".into(),
        _ => in_layer().unwrap_or_else(|| name.into()),
    }
}
