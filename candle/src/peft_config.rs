//! PEFT's `adapter_config.json`.

use lora_pro_core::{AdapterSpec, Error, Scale};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::patterns::Patterns;
use crate::targets::{TargetModules, Targets, is_in};

/// PEFT's `LoraConfig`, as far as it concerns linear layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeftConfig {
    /// Always `LORA`.
    pub peft_type: String,
    /// What kind of task, for PEFT's model classes: `SEQ_CLS`, `CAUSAL_LM` or none.
    #[serde(default)]
    pub task_type: Option<String>,
    /// Where the frozen network comes from.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// Rank r of modules without an entry in `rank_pattern`.
    pub r: usize,
    /// Alpha of modules without an entry in `alpha_pattern`.
    pub lora_alpha: f64,
    /// s = alpha / sqrt(r) instead of alpha / r.
    #[serde(default)]
    pub use_rslora: bool,
    /// The modules with adapters, with ranks and alphas of their own, and those trained as a whole.
    #[serde(flatten)]
    pub targets: Targets,
    /// Which biases are trained: `none`.
    #[serde(default = "none")]
    pub bias: String,
    /// Dropout before A.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Whether weights are stored n x m: false.
    #[serde(default)]
    pub fan_in_fan_out: bool,
    /// How A and B started.
    #[serde(default)]
    pub init_lora_weights: Value,
    /// True in a file that is made for use.
    #[serde(default)]
    pub inference_mode: bool,
}

fn none() -> String {
    "none".into()
}

/// Starts of A and B that leave the frozen weights as they are.
const ORDINARY_STARTS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// Starts that take A and B out of the frozen weights, and that PEFT can convert.
const CONVERTIBLE_STARTS: [&str; 4] = ["pissa", "olora", "corda", "lora_ga"];

/// Fields beside those of [`PeftConfig`] that change nothing about what the adapter computes.
const HARMLESS: [&str; 10] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

impl PeftConfig {
    /// The configuration of these adapters. The first gives the common rank and alpha; others that
    /// differ get an entry of their own.
    pub(crate) fn new(base_name: &str, specs: &[&AdapterSpec]) -> Result<Self, Error> {
        let Some(first) = specs.first() else {
            let expected = "at least one layer with an adapter";
            return Err(Error::invalid("a PEFT adapter", "layers", "none", expected));
        };
        let use_rslora = specs
            .iter()
            .all(|spec| matches!(spec.scale, Scale::RsLora(_)));
        let alpha = |spec: &AdapterSpec| match spec.scale {
            Scale::RsLora(alpha) if use_rslora => alpha,
            Scale::Alpha(alpha) => alpha,
            // PEFT knows no s of its own; alpha = s r gives it.
            _ => spec.s() * spec.r as f64,
        };
        // PEFT's keys also fit the end of a name; `^` makes them fit this module alone.
        let others = || specs.iter().map(|spec| (format!("^{}", spec.name), *spec));
        let ranks = others().filter(|(_, spec)| spec.r != first.r);
        let alphas = others().filter(|(_, spec)| alpha(spec) != alpha(first));
        let names = specs.iter().map(|spec| spec.name.clone()).collect();
        let mut targets = Targets::new(TargetModules::Names(names));
        targets.rank_pattern = ranks.map(|(name, spec)| (name, spec.r)).collect();
        targets.alpha_pattern = alphas.map(|(name, spec)| (name, alpha(spec))).collect();
        Ok(PeftConfig {
            peft_type: "LORA".into(),
            task_type: None,
            base_model_name_or_path: Some(base_name.into()),
            r: first.r,
            lora_alpha: alpha(first),
            use_rslora,
            targets,
            bias: none(),
            lora_dropout: 0.0,
            fan_in_fan_out: false,
            init_lora_weights: true.into(),
            inference_mode: true,
        })
    }

    /// The configuration in a file. Says what it has that this crate does not: it would be another
    /// network than the one that was trained.
    pub(crate) fn read(text: &[u8]) -> Result<Self, String> {
        let fields: Map<String, Value> =
            serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let known = Self::known_fields();
        for (name, value) in &fields {
            check(name, value, &known)?;
        }
        // Not from the fields: their order is lost in them, and in `rank_pattern` it counts.
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }

    /// The fields that this crate makes use of.
    fn known_fields() -> Map<String, Value> {
        let any = AdapterSpec::new("any", 1, 1, 1);
        let config = Self::new("", &[&any]).map(|config| json!(config));
        match config {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    }

    /// Rank and scale of `module`'s adapter; `patterns` are those of [`PeftConfig::targets`].
    pub fn rank_and_scale(
        &self,
        module: &str,
        patterns: &Patterns,
    ) -> Result<(usize, Scale), Error> {
        let alpha = patterns.alpha(module)?.unwrap_or(self.lora_alpha);
        let scale = match self.use_rslora {
            true => Scale::RsLora(alpha),
            false => Scale::Alpha(alpha),
        };
        Ok((patterns.rank(module)?.unwrap_or(self.r), scale))
    }

    /// Whether the tensor called `name` belongs to a module that is trained as a whole.
    pub(crate) fn saves(&self, name: &str) -> bool {
        let heads: &[&str] = match self.task_type.as_deref() {
            // PEFT adds these without saying so in files of older versions.
            Some("SEQ_CLS" | "TOKEN_CLS") => &["classifier", "score"],
            _ => &[],
        };
        let entries = self.targets.modules_to_save.iter().flatten();
        let mut entries = entries.map(String::as_str).chain(heads.iter().copied());
        entries.any(|entry| is_in(name, entry))
    }
}

/// Says so where a field changes what the adapter computes and this crate does not know how.
fn check(name: &str, value: &Value, known: &Map<String, Value>) -> Result<(), String> {
    let needed = |expected: &str| {
        let value = value.as_str().map_or(value.to_string(), String::from);
        Err(format!(
            "{name} is `{value}`, but it must be {expected}: this adapter is none that adds s B A \
             to the weights of linear layers"
        ))
    };
    let empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    };
    match name {
        "init_lora_weights" => check_start(value),
        "peft_type" if value != "LORA" => needed("`LORA`"),
        "bias" if value != "none" => needed("`none`"),
        "fan_in_fan_out" if !empty => needed("false"),
        _ if empty || known.contains_key(name) || HARMLESS.contains(&name) => Ok(()),
        _ => needed("absent or null"),
    }
}

fn check_start(value: &Value) -> Result<(), String> {
    let start = match value {
        Value::String(start) => start.to_lowercase(),
        _ => return Ok(()),
    };
    let begins = |names: &[&str]| names.iter().any(|name| start.starts_with(name));
    if begins(&ORDINARY_STARTS) {
        return Ok(());
    }
    let remedy = match begins(&CONVERTIBLE_STARTS) {
        true => {
            "convert it in PEFT: save the start by save_pretrained(START) before training, and the \
             trained adapter by save_pretrained(FOLDER, path_initial_model_for_weight_conversion=START)"
        }
        false => "merge it in PEFT by merge_and_unload(), and use the merged model",
    };
    Err(format!(
        "init_lora_weights is `{start}`: PEFT changed the model's weights when it made this adapter, \
         which therefore does not fit the original model; {remedy}"
    ))
}
