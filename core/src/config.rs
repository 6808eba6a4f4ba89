//! The whole configuration: one type for TOML files, the command line, Python and checkpoints.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::hyper::Hyper;
use crate::presets::Preset;
use crate::schedule::Schedule;

/// What a step does when a gradient is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNonFinite {
    /// The step is rejected with an error that names the adapter and the entry.
    #[default]
    Error,
    /// The whole step is skipped, which the report says. Mixed-precision training with loss
    /// scaling wants this. A single adapter is never skipped alone: a backward pass that
    /// overflowed is wrong for all.
    Skip,
}

/// Hyper-parameters for a model: common ones, named groups, and what concerns the whole step.
///
/// Written as a file, a group holds only what differs; everything else is inherited, first from
/// the common values, and these from the preset:
///
/// ```
/// use lora_pro_core::{Config, Method};
/// let text = r#"{ "preset": "paper", "method": "factored", "lr": 1e-3,
///                 "groups": { "head": { "lr": 1e-2 } } }"#;
/// let config: Config = serde_json::from_str(text).unwrap();
/// assert_eq!(config.hyper.method, Method::Factored);
/// assert_eq!(config.groups["head"].method, Method::Factored);
/// assert_eq!(config.groups["head"].lr, 1e-2);
/// assert!(serde_json::from_str::<Config>(r#"{ "lrr": 1e-3 }"#).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Config {
    /// The common hyper-parameters.
    #[serde(flatten)]
    pub hyper: Hyper,
    /// The hyper-parameters of named groups.
    pub groups: BTreeMap<String, Hyper>,
    /// Global-norm clip of all raw gradients of a step, before the adjustment.
    pub max_grad_norm: Option<f64>,
    /// What to do with a gradient that is not finite.
    pub on_non_finite: OnNonFinite,
    /// The learning-rate schedule of all groups.
    pub schedule: Schedule,
}

impl Default for Config {
    fn default() -> Self {
        Config::from(Preset::default())
    }
}

impl From<Preset> for Config {
    fn from(preset: Preset) -> Self {
        Config::from(preset.hyper())
    }
}

impl From<Hyper> for Config {
    fn from(hyper: Hyper) -> Self {
        Config {
            hyper,
            groups: BTreeMap::new(),
            max_grad_norm: None,
            on_non_finite: OnNonFinite::Error,
            schedule: Schedule::Constant,
        }
    }
}

impl Config {
    /// With a group of other hyper-parameters.
    pub fn group(mut self, name: impl Into<String>, hyper: Hyper) -> Self {
        self.groups.insert(name.into(), hyper);
        self
    }

    /// With a global-norm clip of all raw gradients, before the adjustment.
    pub fn max_grad_norm(mut self, norm: impl Into<Option<f64>>) -> Self {
        self.max_grad_norm = norm.into();
        self
    }

    /// With another policy for gradients that are not finite.
    pub fn on_non_finite(mut self, policy: OnNonFinite) -> Self {
        self.on_non_finite = policy;
        self
    }

    /// With a learning-rate schedule.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Rejects values out of range, in whichever group they stand.
    pub fn validate(&self) -> Result<(), Error> {
        self.hyper.validate("the optimizer")?;
        for (name, hyper) in &self.groups {
            hyper.validate(&format!("group `{name}`"))?;
        }
        if let Some(norm) = self.max_grad_norm
            && !(norm.is_finite() && norm > 0.0)
        {
            return Err(Error::invalid(
                "the optimizer",
                "max_grad_norm",
                norm,
                "positive and finite",
            ));
        }
        self.schedule.validate()
    }

    /// The hyper-parameters that apply to `group`, asked for by `subject`.
    pub fn hyper_of(&self, subject: &str, group: Option<&str>) -> Result<Hyper, Error> {
        let Some(name) = group else {
            return Ok(self.hyper);
        };
        self.groups.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.groups.keys().map(String::as_str).collect();
            let expected = format!("one of the configured groups [{}]", known.join(", "));
            Error::invalid(subject, "group", format!("`{name}`"), expected)
        })
    }
}

/// What a file may hold; `rest` are the common hyper-parameters.
#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    preset: Preset,
    #[serde(default)]
    groups: BTreeMap<String, Map<String, Value>>,
    #[serde(default)]
    max_grad_norm: Option<f64>,
    #[serde(default)]
    on_non_finite: OnNonFinite,
    #[serde(default)]
    schedule: Schedule,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawConfig::deserialize(deserializer)?;
        let hyper = overlay(raw.preset.hyper(), raw.rest).map_err(D::Error::custom)?;
        let groups = raw
            .groups
            .into_iter()
            .map(|(name, changes)| Ok((name, overlay(hyper, changes)?)))
            .collect::<Result<_, serde_json::Error>>()
            .map_err(D::Error::custom)?;
        Ok(Config {
            hyper,
            groups,
            max_grad_norm: raw.max_grad_norm,
            on_non_finite: raw.on_non_finite,
            schedule: raw.schedule,
        })
    }
}

/// `base` with the fields in `changes` replaced; an unknown field is an error.
fn overlay(base: Hyper, changes: Map<String, Value>) -> Result<Hyper, serde_json::Error> {
    let mut value = serde_json::to_value(base)?;
    if let Value::Object(fields) = &mut value {
        fields.extend(changes);
    }
    serde_json::from_value(value)
}
