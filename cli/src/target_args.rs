//! Which modules are trained: options, and fields of a configuration file.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::Args;
use lora_pro_candle::{OneOrMore, TargetModules, Targets};
use serde::{Deserialize, Serialize};

/// PEFT's fields of these names.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetArgs {
    /// The modules with adapters, or whose weights full-ft trains: names or the ends of them, such as
    /// `query,value`; or a regular expression for whole names [default: all-linear, all but the head]
    #[arg(long, value_name = "NAMES|REGEX", value_parser = modules)]
    target_modules: Option<TargetModules>,
    /// Modules that are left out of them, likewise
    #[arg(long, value_name = "NAMES|REGEX", value_parser = modules)]
    exclude_modules: Option<TargetModules>,
    /// Layers, from 0, whose modules of --target-modules are trained [default: all]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    layers_to_transform: Option<Vec<u64>>,
    /// Ranks of single modules: `intermediate.dense=16,value=4`; a name is a regular expression
    #[arg(long, value_name = "NAME=R,...", value_parser = pattern::<usize>)]
    rank_pattern: Option<BTreeMap<String, usize>>,
    /// Alphas of single modules, likewise
    #[arg(long, value_name = "NAME=ALPHA,...", value_parser = pattern::<f64>)]
    alpha_pattern: Option<BTreeMap<String, f64>>,
    /// Modules that are trained as a whole beside the head, and saved with the adapter: `pooler`
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    modules_to_save: Option<Vec<String>>,
}

impl TargetArgs {
    /// The targets, if anything is said of them.
    pub fn targets(&self) -> Option<Targets> {
        if *self == Self::default() {
            return None;
        }
        let mut targets = Targets::default();
        if let Some(modules) = &self.target_modules {
            targets.target_modules = as_meant(modules);
        }
        targets.exclude_modules = self.exclude_modules.as_ref().map(as_meant);
        targets.layers_to_transform = self.layers_to_transform.clone().map(OneOrMore::More);
        targets.rank_pattern = self.rank_pattern.clone().into_iter().flatten().collect();
        targets.alpha_pattern = self.alpha_pattern.clone().into_iter().flatten().collect();
        targets.modules_to_save = self.modules_to_save.clone();
        Some(targets)
    }
}

fn modules(text: &str) -> Result<TargetModules, String> {
    Ok(TargetModules::Pattern(text.into()))
}

/// A text without the signs of a regular expression is a list of names.
fn as_meant(modules: &TargetModules) -> TargetModules {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.,-".contains(c);
    match modules {
        TargetModules::Pattern(text)
            if text.chars().all(plain) && !text.eq_ignore_ascii_case("all-linear") =>
        {
            TargetModules::Names(text.split(',').map(String::from).collect())
        }
        other => other.clone(),
    }
}

fn pattern<T: FromStr>(text: &str) -> Result<BTreeMap<String, T>, String> {
    let mut values = BTreeMap::new();
    for entry in text.split(',') {
        let (name, value) = entry
            .rsplit_once('=')
            .ok_or_else(|| format!("`{entry}` is not NAME=NUMBER"))?;
        let value = value.parse();
        let value = value.map_err(|_| format!("`{entry}` does not end with a number in range"))?;
        if values.insert(name.into(), value).is_some() {
            return Err(format!("`{name}` is there twice"));
        }
    }
    Ok(values)
}
