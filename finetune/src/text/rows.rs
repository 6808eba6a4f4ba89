//! Rows of any format, reduced to the columns that are used.

use std::{collections::HashSet, path::Path};

use lora_pro_core::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::file::{Format, read_text};
use super::table::{self, Record};

/// What a model learns to tell of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// One of several classes.
    #[default]
    Class,
    /// A number.
    Score,
}

/// The names of the columns, or in JSON lines of the keys. What is `None` is found by its usual name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextColumns {
    /// The text: `text`, `sentence` or `sentence1`.
    pub first: Option<String>,
    /// The second text of a pair: `sentence2`, or none.
    pub second: Option<String>,
    /// Class or score: `label`; for scores, `score` or `label`.
    pub target: Option<String>,
}

/// A row as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub line: usize,
    pub first: String,
    pub second: Option<String>,
    /// Blanks around it are left out; without a target column it is empty.
    pub target: String,
}

const FIRST: &[&str] = &["text", "sentence", "sentence1"];
const SECOND: &[&str] = &["sentence2"];

fn target_names(kind: TargetKind) -> &'static [&'static str] {
    match kind {
        TargetKind::Class => &["label"],
        TargetKind::Score => &["score", "label"],
    }
}

/// Whether a file needs a column of targets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Targets {
    Needed(TargetKind),
    IfThere(TargetKind),
}

/// The columns of one file.
struct Chosen {
    first: String,
    second: Option<String>,
    target: Option<String>,
}

/// The rows of a file.
pub(super) fn read_rows(
    path: &Path,
    columns: &TextColumns,
    targets: Targets,
) -> Result<Vec<Row>, Error> {
    let format = Format::of(path)?;
    let text = read_text(path)?;
    let rows = match format {
        Format::Csv => table::csv(&text).and_then(|records| table_rows(records, columns, targets)),
        Format::Tsv => table_rows(table::tsv(&text), columns, targets),
        Format::JsonLines => json_rows(&text, columns, targets),
    };
    let rows = rows.map_err(|reason| Error::file(path, reason))?;
    match rows.is_empty() {
        true => Err(Error::file(path, "there is a header, but no row below it")),
        false => Ok(rows),
    }
}

fn table_rows(
    records: Vec<Record>,
    columns: &TextColumns,
    targets: Targets,
) -> Result<Vec<Row>, String> {
    let mut records = records.into_iter();
    let (line, names) = records.next().ok_or("the file is empty")?;
    let names: Vec<&str> = names.iter().map(|name| name.trim()).collect();
    let chosen = columns
        .choose(&names, targets)
        .map_err(|reason| format!("line {line}, which must name the columns: {reason}"))?;
    records
        .map(|(line, fields)| {
            if fields.len() != names.len() {
                let (found, expected) = (fields.len(), names.len());
                return Err(format!(
                    "line {line} has {found} fields, but the header has {expected}; \
                     a text with a separator or line break in it needs CSV with quotes, or JSON lines"
                ));
            }
            let field = |name: &str| {
                let at = names.iter().position(|column| *column == name);
                Ok(at.and_then(|at| fields.get(at)).cloned())
            };
            chosen.row(line, field)
        })
        .collect()
}

fn json_rows(text: &str, columns: &TextColumns, targets: Targets) -> Result<Vec<Row>, String> {
    let mut chosen = None;
    let lines = (1..).zip(text.lines());
    lines
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(line, text)| {
            let object: Map<String, Value> =
                serde_json::from_str(text).map_err(|error| json_error(line, &error))?;
            if chosen.is_none() {
                let names: Vec<&str> = object.keys().map(String::as_str).collect();
                let found = columns.choose(&names, targets);
                chosen = Some(found.map_err(|reason| format!("line {line}: {reason}"))?);
            }
            let field = |name: &str| match object.get(name) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.clone())),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
                Some(_) => Err(format!(
                    "line {line}: `{name}` is a list or an object, but it must be a text"
                )),
            };
            match &chosen {
                Some(chosen) => chosen.row(line, field),
                None => Err(format!("line {line}: no columns")),
            }
        })
        .collect()
}

/// `error` with the line of the file in place of that of the single line that was parsed.
pub(super) fn json_error(line: usize, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    let column = error.column();
    format!("line {line}, column {column}: {reason}; each line must be a JSON object")
}

impl TextColumns {
    fn choose(&self, names: &[&str], targets: Targets) -> Result<Chosen, String> {
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(**name)) {
            return Err(format!("two columns are named `{name}`"));
        }
        let needed = |role: &str, asked: &Option<String>, usual: &[&str]| {
            find(role, asked, usual, names)?.ok_or_else(|| {
                let (usual, found) = (list(usual), list(names));
                format!("no column for the {role}: usual names are {usual}, but the columns are {found}; name one")
            })
        };
        Ok(Chosen {
            first: needed("text", &self.first, FIRST)?,
            second: find("second text", &self.second, SECOND, names)?,
            target: match targets {
                Targets::Needed(kind) => Some(needed("target", &self.target, target_names(kind))?),
                Targets::IfThere(kind) => find("target", &self.target, target_names(kind), names)?,
            },
        })
    }
}

/// The column that is asked for, or else the only one with a usual name.
fn find(
    role: &str,
    asked: &Option<String>,
    usual: &[&str],
    names: &[&str],
) -> Result<Option<String>, String> {
    if let Some(asked) = asked {
        return match names.contains(&asked.as_str()) {
            true => Ok(Some(asked.clone())),
            false => {
                let found = list(names);
                Err(format!(
                    "no column `{asked}` for the {role}; the columns are {found}"
                ))
            }
        };
    }
    let found: Vec<&str> = usual
        .iter()
        .filter(|name| names.contains(name))
        .copied()
        .collect();
    match found.as_slice() {
        [] => Ok(None),
        [name] => Ok(Some((*name).to_owned())),
        several => {
            let several = list(several);
            Err(format!("{several} could each be the {role}; name one"))
        }
    }
}

fn list(names: &[&str]) -> String {
    /// A line that is no header may have any number of fields.
    const SHOWN: usize = 12;
    let shown = names.iter().take(SHOWN).map(|name| {
        let mut short: String = name.chars().take(40).collect();
        if short.len() < name.len() {
            short.push_str("...");
        }
        format!("`{short}`")
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

impl Chosen {
    /// Rejects a text or a target that is missing or blank.
    fn row(
        &self,
        line: usize,
        field: impl Fn(&str) -> Result<Option<String>, String>,
    ) -> Result<Row, String> {
        let given = |name: &str| {
            let value = field(name)?.filter(|value| !value.trim().is_empty());
            value.ok_or_else(|| format!("line {line} has no `{name}`"))
        };
        let target = self.target.as_deref().map(given).transpose()?;
        Ok(Row {
            line,
            first: given(&self.first)?,
            second: self.second.as_deref().map(given).transpose()?,
            target: target
                .map(|text| text.trim().to_owned())
                .unwrap_or_default(),
        })
    }
}
