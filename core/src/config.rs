//! The whole configuration: one type for TOML files, the command line, Python and checkpoints.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
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

/// The fields of a file besides those of [`Hyper`].
const OWN_FIELDS: [&str; 5] = [
    "preset",
    "groups",
    "max_grad_norm",
    "on_non_finite",
    "schedule",
];

/// What to write where serde's message alone does not help.
const EXAMPLES: [(&str, &str); 2] = [
    ("damping", r#""none" or {"relative": 1e-4}"#),
    (
        "schedule",
        r#""constant" or {"linear": {"warmup": 10, "total": 100}}"#,
    ),
];

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        read(fields).map_err(D::Error::custom)
    }
}

fn read(mut fields: Map<String, Value>) -> Result<Config, String> {
    let preset: Preset = take(&mut fields, "preset")?;
    let groups: BTreeMap<String, Map<String, Value>> = take(&mut fields, "groups")?;
    let max_grad_norm = take(&mut fields, "max_grad_norm")?;
    let on_non_finite = take(&mut fields, "on_non_finite")?;
    let schedule = take(&mut fields, "schedule")?;
    let hyper = overlay(preset.hyper(), fields, &OWN_FIELDS)?;
    let group = |(name, changes): (String, _)| match overlay(hyper, changes, &[]) {
        Ok(hyper) => Ok((name, hyper)),
        Err(reason) => Err(format!("group `{name}`: {reason}")),
    };
    Ok(Config {
        hyper,
        groups: groups.into_iter().map(group).collect::<Result<_, _>>()?,
        max_grad_norm,
        on_non_finite,
        schedule,
    })
}

/// The field of this name, or its default.
fn take<T: DeserializeOwned + Default>(
    fields: &mut Map<String, Value>,
    name: &str,
) -> Result<T, String> {
    match fields.remove(name) {
        None => Ok(T::default()),
        Some(value) => T::deserialize(value).map_err(|error| wrong(name, error)),
    }
}

/// `base` with the fields in `changes` replaced. An unknown field is an error that lists the known
/// ones, those of `others` too.
fn overlay(base: Hyper, changes: Map<String, Value>, others: &[&str]) -> Result<Hyper, String> {
    let mut hyper = base;
    for (name, value) in changes {
        let mut fields = match serde_json::to_value(hyper) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        if !fields.contains_key(&name) {
            let known: Vec<&str> = fields.keys().map(String::as_str).collect();
            let known = [&known, others].concat().join(", ");
            return Err(format!("unknown field `{name}`, use one of {known}"));
        }
        fields.insert(name.clone(), value);
        hyper = Hyper::deserialize(Value::Object(fields)).map_err(|error| wrong(&name, error))?;
    }
    Ok(hyper)
}

fn wrong(name: &str, error: serde_json::Error) -> String {
    match EXAMPLES.iter().find(|(field, _)| *field == name) {
        Some((_, example)) => format!("{name}: {error}; write {example}"),
        None => format!("{name}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        serde_json::from_str::<Config>(text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_unknown_field_is_answered_with_the_known_ones() {
        let message = error(r#"{ "schedul": "constant" }"#);
        assert!(message.starts_with("unknown field `schedul`, use one of "));
        for field in ["lr", "update_clip", "schedule", "groups"] {
            assert!(message.contains(&format!(" {field}")), "{message}");
        }
        let message = error(r#"{ "groups": { "head": { "schedule": "constant" } } }"#);
        assert!(message.starts_with("group `head`: unknown field `schedule`"));
        assert!(!message.contains("max_grad_norm"), "{message}");
    }

    #[test]
    fn a_wrong_value_names_its_field_and_shows_a_right_one() {
        let message = error(r#"{ "schedule": "linear" }"#);
        assert!(message.starts_with("schedule: "), "{message}");
        assert!(message.contains(r#"{"linear": {"warmup": 10, "total": 100}}"#));
        let message = error(r#"{ "groups": { "head": { "damping": "absolute" } } }"#);
        assert!(message.starts_with("group `head`: damping: "), "{message}");
        assert!(error(r#"{ "lr": "fast" }"#).starts_with("lr: invalid type"));
    }

    #[test]
    fn a_configuration_survives_a_file() {
        let schedule = Schedule::Cosine {
            warmup: 2,
            total: 9,
        };
        let head = Hyper::default().lr(0.25).update_clip(Some(0.5));
        let config = Config::default()
            .group("head", head)
            .max_grad_norm(1.0)
            .schedule(schedule);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }
}
