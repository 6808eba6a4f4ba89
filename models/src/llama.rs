//! Decoders after Llama, as transformers' `LlamaForCausalLM` and its kin Mistral and Qwen2: Touvron et
//! al., "LLaMA", <https://arxiv.org/abs/2302.13971>.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use lora_pro_candle::linear;
use serde::Deserialize;

use crate::activation::Activation;
use crate::forward::Forward;
use crate::fused::{Heads, gate, linear_cross_entropy};
use crate::model::{Input, Model, NextTokens, Tokens};
use crate::pretrained::{Pretrained, Shapes, check_layers, check_multiple};
use crate::rotary::{RopeParameters, Rotary};

/// What is used of a decoder's `config.json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LlamaConfig {
    /// `llama`, `mistral` or `qwen2`.
    pub model_type: String,
    /// Width of a token's vector.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of the attention.
    pub num_attention_heads: usize,
    /// Heads of keys and values; as many as the others if it is not given.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; hidden_size / num_attention_heads if it is not given.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Width inside a layer's SwiGLU.
    pub intermediate_size: usize,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Most tokens of a text.
    pub max_position_embeddings: usize,
    /// Added to the mean of squares in the norms.
    #[serde(default = "tiny")]
    pub rms_norm_eps: f64,
    /// The gate's activation.
    #[serde(default = "silu")]
    pub hidden_act: Activation,
    /// The base of the rotary embeddings' frequencies.
    #[serde(default = "ten_thousand")]
    pub rope_theta: f64,
    /// The frequencies, as transformers 5 writes them.
    #[serde(default)]
    pub rope_parameters: Option<RopeParameters>,
    /// The frequencies, as transformers 4 writes them.
    #[serde(default)]
    pub rope_scaling: Option<RopeParameters>,
    /// Whether the head is the transposed embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Whether Llama's attention has biases. Qwen2's q, k and v always have them.
    #[serde(default)]
    pub attention_bias: bool,
    /// Whether Llama's SwiGLU has biases.
    #[serde(default)]
    pub mlp_bias: bool,
    /// How far back a token sees.
    #[serde(default)]
    pub sliding_window: Option<usize>,
    /// Whether Qwen2 uses `sliding_window`.
    #[serde(default)]
    pub use_sliding_window: Option<bool>,
}

fn tiny() -> f64 {
    1e-6
}

fn silu() -> Activation {
    Activation::Silu
}

fn ten_thousand() -> f64 {
    1e4
}

impl LlamaConfig {
    /// Says what does not fit.
    pub fn validate(&self) -> std::result::Result<(), String> {
        let heads = ("num_attention_heads", self.num_attention_heads);
        check_multiple(heads, ("num_key_value_heads", self.groups()))?;
        if self.head_dim.is_none() {
            check_multiple(("hidden_size", self.hidden_size), heads)?;
        }
        check_layers(self.num_hidden_layers)
    }

    fn groups(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn head_width(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Most tokens of a text. Within the window, attention is as without one.
    fn most_positions(&self) -> usize {
        let used = self.use_sliding_window;
        let used = used.unwrap_or(self.model_type != "qwen2");
        let window = self.sliding_window.filter(|_| used);
        window.map_or(self.max_position_embeddings, |window| {
            window.min(self.max_position_embeddings)
        })
    }

    fn has_bias(&self, map: &str) -> bool {
        match map {
            "self_attn.o_proj" => self.attention_bias,
            _ if map.starts_with("self_attn") => self.attention_bias || self.model_type == "qwen2",
            _ => self.mlp_bias,
        }
    }
}

/// A decoder, with what makes a task of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama {
    config: LlamaConfig,
    rotary: Rotary,
    outputs: Option<usize>,
}

/// Gives the numbers of a classification from the last token's vector.
const SCORE: &str = "score";
/// Gives the logits of a language model.
const LM_HEAD: &str = "lm_head";
/// The embedding of the tokens.
const EMBEDDING: &str = "model.embed_tokens";
/// The norm after the layers.
const NORM: &str = "model.norm";
/// Linear maps of a layer, in the order of the pass.
const MAPS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
/// Norms of a layer: before the attention, and before the SwiGLU.
const NORMS: [&str; 2] = ["input_layernorm", "post_attention_layernorm"];

impl Llama {
    /// A language model; or, where `outputs` is given, a model that tells so many numbers from a text's
    /// last token. Says what does not fit in the configuration.
    pub fn new(config: LlamaConfig, outputs: Option<usize>) -> std::result::Result<Self, String> {
        config.validate()?;
        let parameters = config.rope_parameters.as_ref();
        let parameters = parameters.or(config.rope_scaling.as_ref());
        let parameters = parameters.cloned().unwrap_or_default();
        let rotary = Rotary::new(config.head_width(), config.rope_theta, &parameters)?;
        Ok(Llama {
            config,
            rotary,
            outputs,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// x + attention(norm(x)), then x + SwiGLU(norm(x)); N x T x H.
    fn layer(&self, pass: &Forward<'_>, index: usize, x: Tensor, heads: &Heads) -> Result<Tensor> {
        let config = &self.config;
        let map = |part: &str, x: &Tensor| pass.linear(&layer_name(index, part), x);
        let norm = |part: &str, x: &Tensor| {
            pass.rms_norm(&layer_name(index, part), x, config.rms_norm_eps)
        };
        let [query, key, value, mixed, gated, up, down] = MAPS;

        let normed = norm(NORMS[0], &x)?;
        let (q, k, v) = (
            map(query, &normed)?,
            map(key, &normed)?,
            map(value, &normed)?,
        );
        let attended = pass.attention([&q, &k, &v], heads, 0.0)?;
        let x = (x + map(mixed, &attended)?)?;

        let normed = norm(NORMS[1], &x)?;
        let inner = gate(config.hidden_act, &map(gated, &normed)?, &map(up, &normed)?)?;
        x + map(down, &inner)?
    }

    /// The normed vectors after all layers, N x T x H.
    fn hidden(&self, pass: &Forward<'_>, tokens: &Tokens) -> Result<Tensor> {
        let (_, positions) = tokens.ids.dims2()?;
        let most = self.config.most_positions();
        if positions > most {
            candle_core::bail!("a text has {positions} tokens, but the model takes at most {most}");
        }
        let mut x = pass
            .embedding(EMBEDDING, &tokens.ids)?
            .to_dtype(DType::F32)?;
        let heads = Heads {
            count: self.config.num_attention_heads,
            groups: self.config.groups(),
            tokens: Some(tokens.present()?),
            causal: true,
            angles: Some(Arc::new(self.rotary.angles(positions))),
        };
        for index in 0..self.config.num_hidden_layers {
            x = self.layer(pass, index, x, &heads)?;
        }
        pass.rms_norm(NORM, &x, self.config.rms_norm_eps)
    }

    /// The normed vectors at the wanted positions, K x H.
    fn wanted(&self, pass: &Forward<'_>, tokens: &Tokens) -> Result<Tensor> {
        let vectors = self.hidden(pass, tokens)?.flatten(0, 1)?;
        match &tokens.wanted {
            Some(wanted) => vectors.index_select(wanted, 0),
            None => Ok(vectors),
        }
    }

    /// Logits over the vocabulary for vectors, K x H.
    fn logits(&self, pass: &Forward<'_>, vectors: &Tensor) -> Result<Tensor> {
        match self.config.tie_word_embeddings {
            true => linear(&pass.parameters().linear(EMBEDDING)?, vectors),
            false => pass.linear(LM_HEAD, vectors),
        }
    }
}

impl Model for Llama {
    fn linear_modules(&self) -> Vec<String> {
        let layers = 0..self.config.num_hidden_layers;
        let maps = layers.flat_map(|index| MAPS.map(|part| layer_name(index, part)));
        maps.collect()
    }

    fn head(&self) -> Option<&str> {
        self.outputs.map(|_| SCORE)
    }

    fn task_type(&self) -> Option<&'static str> {
        Some(match self.outputs {
            Some(_) => "SEQ_CLS",
            None => "CAUSAL_LM",
        })
    }

    fn shared(&self) -> Option<&'static str> {
        (self.outputs.is_none() && self.config.tie_word_embeddings).then_some(EMBEDDING)
    }

    fn forward(&self, pass: &Forward<'_>, input: &Input) -> Result<Tensor> {
        let tokens = input.tokens()?;
        if self.outputs.is_some() {
            let vectors = self.hidden(pass, tokens)?.flatten(0, 1)?;
            let last = vectors.index_select(&last_tokens(&tokens.mask)?, 0)?;
            return pass.linear(SCORE, &last);
        }
        self.logits(pass, &self.wanted(pass, tokens)?)
    }

    fn next_tokens(
        &self,
        pass: &Forward<'_>,
        tokens: &Tokens,
        next: &Tensor,
    ) -> Result<NextTokens> {
        if self.outputs.is_some() {
            candle_core::bail!("this model classifies: it tells no next tokens");
        }
        let vectors = self.wanted(pass, tokens)?;
        let head = match self.config.tie_word_embeddings {
            true => EMBEDDING,
            false => LM_HEAD,
        };
        let head = pass.parameters().linear(head)?;
        if head.weight().track_op() || pass.parameters().adapter(LM_HEAD).is_some() {
            return NextTokens::of(&self.logits(pass, &vectors)?, next);
        }
        let (loss, right) = linear_cross_entropy(&vectors, head.weight(), &next.to_vec1()?)?;
        Ok(NextTokens { loss, right })
    }
}

impl Pretrained for Llama {
    fn shapes(&self) -> Shapes {
        let config = &self.config;
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let q = config
            .num_attention_heads
            .saturating_mul(config.head_width());
        let kv = config.groups().saturating_mul(config.head_width());
        let mut shapes = Shapes::default();
        shapes.weight(EMBEDDING, [config.vocab_size, width]);
        shapes.weight(NORM, [width]);
        for index in 0..config.num_hidden_layers {
            let sizes = [
                [q, width],
                [kv, width],
                [kv, width],
                [width, q],
                [inner, width],
                [inner, width],
                [width, inner],
            ];
            for (part, size) in MAPS.into_iter().zip(sizes) {
                let module = layer_name(index, part);
                match config.has_bias(part) {
                    true => shapes.linear(&module, size),
                    false => shapes.weight(&module, size),
                }
            }
            for part in NORMS {
                shapes.weight(&layer_name(index, part), [width]);
            }
        }
        match self.outputs {
            Some(outputs) => shapes.new_weight(SCORE, [outputs, width]),
            None if !config.tie_word_embeddings => {
                shapes.weight(LM_HEAD, [config.vocab_size, width]);
            }
            None => {}
        }
        shapes
    }

    /// Files of a bare `LlamaModel` lack the prefix.
    fn name(&self, in_file: &str) -> String {
        match in_file.split_once('.') {
            Some(("embed_tokens" | "layers" | "norm", _)) => format!("model.{in_file}"),
            _ => in_file.to_string(),
        }
    }
}

/// Where each row's last token is, in the rows laid end to end; N, u32. A row of padding has its first.
fn last_tokens(mask: &Tensor) -> Result<Tensor> {
    let (_, positions) = mask.dims2()?;
    let rows = mask.to_vec2::<u32>()?;
    let last = rows.iter().enumerate().map(|(row, mask)| {
        let last = mask.iter().rposition(|&token| token == 1).unwrap_or(0);
        (row * positions + last) as u32
    });
    Tensor::new(last.collect::<Vec<u32>>(), mask.device())
}

fn layer_name(index: usize, part: &str) -> String {
    format!("model.layers.{index}.{part}")
}
