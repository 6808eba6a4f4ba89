//! BERT-style encoders with a classifier on top, as transformers' `BertForSequenceClassification`:
//! Devlin et al., "BERT", <https://arxiv.org/abs/1810.04805>.

use candle_core::{DType, Result, Tensor};
use serde::Deserialize;

use crate::activation::Activation;
use crate::forward::Forward;
use crate::fused::Heads;
use crate::model::{Input, Model, Tokens};
use crate::pretrained::{Pretrained, Shapes, check_layers, check_multiple, check_probability};

/// What is used of a BERT model's `config.json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct BertConfig {
    /// Width of a token's vector.
    pub hidden_size: usize,
    /// Layers of the encoder.
    pub num_hidden_layers: usize,
    /// Heads of the attention.
    pub num_attention_heads: usize,
    /// Width between a layer's two maps.
    pub intermediate_size: usize,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Most tokens of a text.
    pub max_position_embeddings: usize,
    /// Kinds of tokens: those of a pair's first and second text.
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    /// Added to the variance in the layer norms.
    #[serde(default = "tiny")]
    pub layer_norm_eps: f64,
    /// Between a layer's two maps.
    #[serde(default = "gelu")]
    pub hidden_act: Activation,
    /// Probability of dropout after embeddings and after a layer's maps.
    #[serde(default)]
    pub hidden_dropout_prob: f64,
    /// Probability of dropout after the attention's softmax.
    #[serde(default)]
    pub attention_probs_dropout_prob: f64,
    /// Probability of dropout before the classifier; `hidden_dropout_prob` if it is not given.
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    /// `absolute` is what this crate can do.
    #[serde(default)]
    pub position_embedding_type: Option<String>,
}

fn two() -> usize {
    2
}

fn tiny() -> f64 {
    1e-12
}

fn gelu() -> Activation {
    Activation::Gelu
}

impl BertConfig {
    /// Says what does not fit.
    pub fn validate(&self) -> std::result::Result<(), String> {
        let heads = ("num_attention_heads", self.num_attention_heads);
        check_multiple(("hidden_size", self.hidden_size), heads)?;
        check_layers(self.num_hidden_layers)?;
        let dropout = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
            (
                "classifier_dropout",
                self.classifier_dropout.unwrap_or_default(),
            ),
        ];
        for (name, p) in dropout {
            check_probability(name, p)?;
        }
        match self.position_embedding_type.as_deref() {
            None | Some("absolute") => Ok(()),
            Some(other) => Err(format!(
                "position_embedding_type is `{other}`, but only `absolute` is supported"
            )),
        }
    }
}

/// A BERT-style encoder whose pooled first token goes to a classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Bert {
    config: BertConfig,
    outputs: usize,
}

/// The head's name.
const CLASSIFIER: &str = "classifier";
/// The map of the first token's vector.
const POOLER: &str = "bert.pooler.dense";
/// Names of the embeddings begin so.
const EMBEDDINGS: &str = "bert.embeddings";
/// Linear maps of a layer, in the order of the pass.
const MAPS: [&str; 6] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
];

impl Bert {
    /// An encoder with a classifier of so many outputs. Says what does not fit in the configuration.
    pub fn new(config: BertConfig, outputs: usize) -> std::result::Result<Self, String> {
        config.validate()?;
        Ok(Bert { config, outputs })
    }

    /// The configuration.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The sum of the embeddings of token, position and type, normed; N x T x H.
    fn embed(&self, pass: &Forward<'_>, tokens: &Tokens) -> Result<Tensor> {
        let (_, positions) = tokens.ids.dims2()?;
        let most = self.config.max_position_embeddings;
        if positions > most {
            candle_core::bail!("a text has {positions} tokens, but the model takes at most {most}");
        }
        let places = Tensor::arange(0, positions as u32, tokens.ids.device())?;
        let rows = |table: &str, ids| pass.embedding(&format!("{EMBEDDINGS}.{table}"), ids);
        let words = rows("word_embeddings", &tokens.ids)?;
        let types = rows("token_type_embeddings", &tokens.types)?;
        let sum = (words + types)?.broadcast_add(&rows("position_embeddings", &places)?)?;
        let normed = self.norm(pass, EMBEDDINGS, &sum.to_dtype(DType::F32)?)?;
        pass.dropout(&normed, self.config.hidden_dropout_prob)
    }

    /// One layer: attention, then two maps with an activation between them; N x T x H.
    fn layer(&self, pass: &Forward<'_>, index: usize, x: &Tensor, heads: &Heads) -> Result<Tensor> {
        let config = &self.config;
        let name = |part: &str| layer_name(index, part);
        let map = |part: &str, x: &Tensor| pass.linear(&name(part), x);
        let [query, key, value, mixed, up, down] = MAPS;

        let (q, k, v) = (map(query, x)?, map(key, x)?, map(value, x)?);
        let dropout = config.attention_probs_dropout_prob;
        let attended = pass.attention([&q, &k, &v], heads, dropout)?;
        let attended = pass.dropout(&map(mixed, &attended)?, config.hidden_dropout_prob)?;
        let x = self.norm(pass, &name("attention.output"), &(attended + x)?)?;

        let inner = config.hidden_act.apply(&map(up, &x)?)?;
        let outer = pass.dropout(&map(down, &inner)?, config.hidden_dropout_prob)?;
        self.norm(pass, &name("output"), &(outer + &x)?)
    }

    fn norm(&self, pass: &Forward<'_>, module: &str, x: &Tensor) -> Result<Tensor> {
        let module = format!("{module}.LayerNorm");
        pass.layer_norm(&module, x, self.config.layer_norm_eps)
    }
}

impl Model for Bert {
    fn linear_modules(&self) -> Vec<String> {
        let layers = 0..self.config.num_hidden_layers;
        let maps = layers.flat_map(|index| MAPS.map(|part| layer_name(index, part)));
        maps.chain([POOLER.into()]).collect()
    }

    fn head(&self) -> Option<&str> {
        Some(CLASSIFIER)
    }

    fn task_type(&self) -> Option<&'static str> {
        Some("SEQ_CLS")
    }

    fn forward(&self, pass: &Forward<'_>, input: &Input) -> Result<Tensor> {
        let tokens = input.tokens()?;
        let mut hidden = self.embed(pass, tokens)?;
        let heads = Heads {
            tokens: Some(tokens.present()?),
            ..Heads::alike(self.config.num_attention_heads)
        };
        for index in 0..self.config.num_hidden_layers {
            hidden = self.layer(pass, index, &hidden, &heads)?;
        }
        let first = hidden.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        let pooled = pass.linear(POOLER, &first)?.tanh()?;
        let dropout = self.config.classifier_dropout;
        let dropout = dropout.unwrap_or(self.config.hidden_dropout_prob);
        pass.linear(CLASSIFIER, &pass.dropout(&pooled, dropout)?)
    }
}

impl Pretrained for Bert {
    fn shapes(&self) -> Shapes {
        let config = &self.config;
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let mut shapes = Shapes::default();
        let mut table = |name: &str, rows| {
            shapes.weight(&format!("{EMBEDDINGS}.{name}"), [rows, width]);
        };
        table("word_embeddings", config.vocab_size);
        table("position_embeddings", config.max_position_embeddings);
        table("token_type_embeddings", config.type_vocab_size);
        shapes.norm(&format!("{EMBEDDINGS}.LayerNorm"), width);
        for index in 0..config.num_hidden_layers {
            for part in MAPS {
                let [m, n] = match part {
                    "intermediate.dense" => [inner, width],
                    "output.dense" => [width, inner],
                    _ => [width, width],
                };
                shapes.linear(&layer_name(index, part), [m, n]);
            }
            for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
                shapes.norm(&layer_name(index, part), width);
            }
        }
        shapes.new_linear(POOLER, [width, width]);
        shapes.new_linear(CLASSIFIER, [self.outputs, width]);
        shapes
    }

    /// Files of a bare `BertModel` lack the prefix, and files of TensorFlow's time call a norm's weight
    /// and bias gamma and beta.
    fn name(&self, in_file: &str) -> String {
        let name = match in_file.split_once('.') {
            Some(("embeddings" | "encoder" | "pooler", _)) => format!("bert.{in_file}"),
            _ => in_file.to_string(),
        };
        let renamed = |old: &str, new: &str| Some(format!("{}.{new}", name.strip_suffix(old)?));
        renamed(".gamma", "weight")
            .or_else(|| renamed(".beta", "bias"))
            .unwrap_or(name)
    }
}

fn layer_name(index: usize, part: &str) -> String {
    format!("bert.encoder.layer.{index}.{part}")
}
