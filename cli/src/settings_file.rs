//! Settings from a TOML file, which those of the command line override.

use std::path::Path;

use lora_pro_core::Error;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// The file's fields. Rejects what is not TOML.
pub fn read(path: &Path) -> Result<Map<String, Value>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    toml::from_str(&text).map_err(|error| Error::file(path, error.to_string().trim_end()))
}

/// The key of the first number that is NaN or infinite: JSON has no such numbers, and makes
/// `null` of them, which would pass for an absent value.
pub fn not_finite(fields: &Map<String, Value>) -> Option<String> {
    let inner = |key: &String, value: &Value| match value {
        Value::Object(fields) => not_finite(fields).map(|inner| format!("{key}.{inner}")),
        Value::Array(values) => values.iter().any(Value::is_null).then(|| key.clone()),
        value => value.is_null().then(|| key.clone()),
    };
    fields.iter().find_map(|(key, value)| inner(key, value))
}

/// The fields that are not absent.
pub fn given(settings: &impl Serialize) -> Result<Map<String, Value>, Failure> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => Ok(fields.into_iter().filter(|(_, v)| !v.is_null()).collect()),
        _ => Err(Failure::Input("the options cannot be written down".into())),
    }
}
