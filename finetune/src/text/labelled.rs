//! Sentences and pairs of sentences with a class or a score.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use lora_pro_core::Error;
use lora_pro_models::usual_labels;

use super::rows::{Row, TargetKind, Targets, TextColumns, read_rows};

/// More classes are taken for a mistake: the model's head would have that many rows.
const MOST_CLASSES: usize = 1000;

/// A text, or a pair of texts, and what is to be told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct TextExample {
    /// The text, or the first of a pair.
    pub first: String,
    /// The second text of a pair.
    pub second: Option<String>,
    /// Its class or its score.
    pub target: Target,
}

/// A text, or a pair of texts, of which something is to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct UnlabelledText {
    /// The text, or the first of a pair.
    pub first: String,
    /// The second text of a pair.
    pub second: Option<String>,
    /// What is right, where the file says it.
    pub target: Option<Target>,
}

impl UnlabelledText {
    /// The texts of a file as [`TextDataset::read`] reads it, which may lack the column of targets.
    /// Classes that have only the names `LABEL_0` and so on go by their numbers as well.
    ///
    /// Rejects a class that is none of `classes`, and a score that is no number.
    pub fn read(
        path: &Path,
        kind: TargetKind,
        classes: &[String],
        columns: &TextColumns,
    ) -> Result<Vec<Self>, Error> {
        let rows = read_rows(path, columns, Targets::IfThere(kind))?;
        let mut indices = indices(classes);
        let numbers: Vec<String> = (0..classes.len()).map(|class| class.to_string()).collect();
        if classes == usual_labels(classes.len()) {
            indices.extend(numbers.iter().map(String::as_str).zip(0..));
        }
        let text = |row: Row| {
            let target = match row.target.is_empty() {
                true => None,
                false => {
                    let target = target(kind, &indices, &row);
                    Some(target.map_err(|reason| Error::file(path, reason))?)
                }
            };
            Ok(UnlabelledText {
                first: row.first,
                second: row.second,
                target,
            })
        };
        rows.into_iter().map(text).collect()
    }
}

/// What is to be told of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// The index of its class in [`TextDataset::classes`].
    Class(u32),
    /// A finite number.
    Score(f32),
}

/// The examples of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TextDataset {
    /// The file's path.
    pub name: String,
    /// Class or score, the same for all examples.
    pub kind: TargetKind,
    /// The names of the classes; none for scores. Whole numbers stand in their order, other names in
    /// that of the alphabet, so labels 0 to K - 1 are their own indices.
    pub classes: Vec<String>,
    /// In the order of the file.
    pub examples: Vec<TextExample>,
}

impl TextDataset {
    /// The examples of a CSV, TSV or JSON-lines file, by the ending of its name. In CSV and TSV the
    /// first line names the columns; columns that are not used are left out.
    ///
    /// An error names file and line: for a missing text or label, a score that is no number, a row
    /// with too few or too many fields, quotes that do not match, a column that is not there. Labels
    /// that are all the same are refused too.
    ///
    /// ```
    /// use lora_pro_finetune::{Target, TargetKind, TextColumns, TextDataset};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("reviews.tsv");
    /// std::fs::write(&path, "label\ttext\ngood\tA film to see.\nbad\tTwo hours too long.\n").unwrap();
    /// let data = TextDataset::read(&path, TargetKind::Class, &TextColumns::default())?;
    /// assert_eq!(data.classes, ["bad", "good"]);
    /// assert_eq!(data.examples[0].target, Target::Class(1));
    /// # Ok::<(), lora_pro_core::Error>(())
    /// ```
    pub fn read(path: &Path, kind: TargetKind, columns: &TextColumns) -> Result<Self, Error> {
        let rows = read_rows(path, columns, Targets::Needed(kind))?;
        let classes = match kind {
            TargetKind::Class => classes(&rows).map_err(|reason| Error::file(path, reason))?,
            TargetKind::Score => Vec::new(),
        };
        let data = Self::of_rows(path, kind, classes, rows)?;
        data.check_variety()?;
        Ok(data)
    }

    /// Another file of the same task, such as one to test on: with classes of `self` alone, and pairs
    /// if `self` has pairs.
    pub fn read_like(&self, path: &Path, columns: &TextColumns) -> Result<Self, Error> {
        let rows = read_rows(path, columns, Targets::Needed(self.kind))?;
        let data = Self::of_rows(path, self.kind, self.classes.clone(), rows)?;
        if data.has_pairs() != self.has_pairs() {
            let texts = |data: &Self| {
                if data.has_pairs() {
                    "pairs of texts"
                } else {
                    "single texts"
                }
            };
            let reason = format!(
                "it has {}, but {} has {}",
                texts(&data),
                self.name,
                texts(self)
            );
            return Err(Error::file(path, reason));
        }
        Ok(data)
    }

    /// True where an example is a pair of texts.
    pub fn has_pairs(&self) -> bool {
        self.examples.iter().any(|example| example.second.is_some())
    }

    /// CRC-32 of all examples and class names: a resumed run asks for the data it began with.
    pub fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        self.classes
            .iter()
            .for_each(|name| hash_text(&mut hasher, name));
        for example in &self.examples {
            hash_text(&mut hasher, &example.first);
            hasher.update(&[u8::from(example.second.is_some())]);
            hash_text(&mut hasher, example.second.as_deref().unwrap_or_default());
            match example.target {
                Target::Class(class) => hasher.update(&class.to_le_bytes()),
                Target::Score(score) => hasher.update(&score.to_le_bytes()),
            }
        }
        hasher.finalize()
    }

    fn of_rows(
        path: &Path,
        kind: TargetKind,
        classes: Vec<String>,
        rows: Vec<Row>,
    ) -> Result<Self, Error> {
        let indices = indices(&classes);
        let example = |row: Row| {
            let target = target(kind, &indices, &row);
            Ok(TextExample {
                target: target.map_err(|reason| Error::file(path, reason))?,
                first: row.first,
                second: row.second,
            })
        };
        let examples = rows
            .into_iter()
            .map(example)
            .collect::<Result<_, Error>>()?;
        let name = path.display().to_string();
        Ok(TextDataset {
            name,
            kind,
            classes,
            examples,
        })
    }

    /// Rejects examples with the same target all.
    fn check_variety(&self) -> Result<(), Error> {
        let mut targets = self.examples.iter().map(|example| example.target);
        let first = targets.next();
        if targets.any(|target| Some(target) != first) {
            return Ok(());
        }
        let target = match first {
            Some(Target::Score(score)) => format!("score {score}"),
            _ => format!("label `{}`", self.classes.join("")),
        };
        let count = self.examples.len();
        let reason = format!("all {count} examples have the {target}: there is nothing to learn");
        Err(Error::file(&self.name, reason))
    }
}

/// A text with its length, so that no other list of texts gives the same bytes.
pub(super) fn hash_text(hasher: &mut crc32fast::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// The different labels in their order.
fn classes(rows: &[Row]) -> Result<Vec<String>, String> {
    let names: BTreeSet<&str> = rows.iter().map(|row| row.target.as_str()).collect();
    if let Some(row) = rows.iter().find(|row| is_fraction(&row.target)) {
        let (line, label) = (row.line, &row.target);
        return Err(format!(
            "line {line}: label `{label}` is no class but a score; that is a task of regression"
        ));
    }
    if names.len() > MOST_CLASSES {
        let count = names.len();
        return Err(format!(
            "{count} different labels, but at most {MOST_CLASSES} are taken for classes"
        ));
    }
    let mut names: Vec<&str> = names.into_iter().collect();
    let numbers: Option<Vec<i64>> = names.iter().map(|name| name.parse().ok()).collect();
    if numbers.is_some() {
        names.sort_by_key(|name| name.parse::<i64>().ok());
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

fn is_fraction(label: &str) -> bool {
    label
        .parse::<f64>()
        .is_ok_and(|number| number.is_finite() && number.fract() != 0.0)
}

/// The classes' numbers by their names.
fn indices(classes: &[String]) -> HashMap<&str, u32> {
    let names = classes.iter().map(String::as_str);
    names.zip(0..).collect()
}

fn target(kind: TargetKind, indices: &HashMap<&str, u32>, row: &Row) -> Result<Target, String> {
    match kind {
        TargetKind::Class => class(indices, row),
        TargetKind::Score => score(row),
    }
}

fn class(indices: &HashMap<&str, u32>, row: &Row) -> Result<Target, String> {
    let index = indices.get(row.target.as_str());
    index.copied().map(Target::Class).ok_or_else(|| {
        let (line, label) = (row.line, &row.target);
        format!("line {line}: label `{label}` is none of the classes that are trained")
    })
}

fn score(row: &Row) -> Result<Target, String> {
    let score = row
        .target
        .parse::<f32>()
        .ok()
        .filter(|score| score.is_finite());
    score.map(Target::Score).ok_or_else(|| {
        let (line, text) = (row.line, &row.target);
        format!("line {line}: score `{text}` is no finite number")
    })
}
