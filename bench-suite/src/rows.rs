//! What is measured and what it should reach, as data: `rows.toml`.

use lora_pro_core::{Error, Method, MomentDType};
use serde::{Deserialize, Serialize};

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name on the command line.
    pub id: String,
    /// In words.
    pub what: String,
    /// What is measured of the work.
    #[serde(default)]
    pub measure: Measure,
    /// The work.
    pub work: Work,
    /// The goals; each is a list of limits, and the largest of them counts.
    pub goals: Vec<Vec<Limit>>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Seconds of a step, after a warm-up.
    #[default]
    Step,
    /// Seconds of the first step of a new optimizer.
    FirstStep,
    /// Bytes of the optimizer's state.
    State,
    /// Bytes of peak resident memory of a process that only does this work.
    Memory,
}

impl Measure {
    /// True for seconds, false for bytes.
    pub fn is_time(self) -> bool {
        matches!(self, Measure::Step | Measure::FirstStep)
    }
}

/// An optimizer on a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Name of the model ([`crate::shapes::ModelShape::named`]).
    pub model: String,
    /// The method.
    pub method: Method,
    /// Rank of every adapter.
    pub rank: usize,
    /// Storage of the full mode's moments.
    #[serde(default = "f32_moments")]
    pub moments: MomentDType,
    /// Threads; `None` for those of the run.
    #[serde(default)]
    pub threads: Option<usize>,
}

fn f32_moments() -> MomentDType {
    MomentDType::F32
}

/// A multiple of a floor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What the measured number may be at most, over the floor.
    pub times: f64,
    /// The floor.
    pub floor: Floor,
}

/// What a row is measured against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Floor {
    /// An in-place pass over the compulsory bytes ([`crate::model`]).
    Pass,
    /// The needed operations at the rate of a matrix product.
    Matmul,
    /// Later steps of the same optimizer.
    Later,
    /// Bytes of parameters, gradients and state, and 64 MiB.
    Data,
    /// Another step, or for [`Measure::State`] its bytes.
    Step(Change),
}

/// What differs from the row's own work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// Another method.
    pub method: Option<Method>,
    /// Other moments.
    pub moments: Option<MomentDType>,
    /// Another number of threads.
    pub threads: Option<usize>,
}

impl Work {
    /// This work with a change.
    pub fn changed(&self, change: Change) -> Self {
        Work {
            method: change.method.unwrap_or(self.method),
            moments: change.moments.unwrap_or(self.moments),
            threads: change.threads.or(self.threads),
            ..self.clone()
        }
    }
}

impl std::fmt::Display for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Floor::Step(change) = self else {
            return f.write_str(match self {
                Floor::Pass => "pass",
                Floor::Matmul => "matmul",
                Floor::Later => "later steps",
                _ => "data + 64 MiB",
            });
        };
        let method = change.method.map(|method| method.to_string());
        let moments = change.moments.map(|moments| format!("{moments} moments"));
        let threads = change.threads.map(|threads| match threads {
            1 => "1 thread".to_string(),
            _ => format!("{threads} threads"),
        });
        let words: Vec<String> = [method, moments, threads].into_iter().flatten().collect();
        f.write_str(&words.join(", "))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rows: Vec<Row>,
}

/// Every row, in the order of the table.
pub fn rows() -> Result<Vec<Row>, Error> {
    let text = include_str!("../rows.toml");
    let file: File = toml::from_str(text)
        .map_err(|error| Error::invalid("rows.toml", "a row", error.message(), "valid"))?;
    Ok(file.rows)
}

/// The rows with these names, in the order of the table.
pub fn named(ids: &[String]) -> Result<Vec<Row>, Error> {
    let mut all = rows()?;
    if let Some(unknown) = ids.iter().find(|id| all.iter().all(|row| row.id != **id)) {
        let known: Vec<&str> = all.iter().map(|row| row.id.as_str()).collect();
        let expected = format!("one of {}", known.join(" "));
        return Err(Error::invalid(
            "the benchmark",
            "row",
            format!("`{unknown}`"),
            expected,
        ));
    }
    all.retain(|row| ids.contains(&row.id));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_readable_and_their_names_unique() {
        let rows = rows().unwrap();
        for (k, row) in rows.iter().enumerate() {
            assert!(rows[..k].iter().all(|other| other.id != row.id));
            assert!(row.goals.iter().all(|limits| !limits.is_empty()));
            assert!(crate::shapes::ModelShape::named(&row.work.model).is_ok());
        }
    }

    #[test]
    fn an_unknown_row_is_named_with_the_known_ones() {
        let error = named(&["full-r9".into()]).unwrap_err().to_string();
        assert!(error.contains("`full-r9`"), "{error}");
        assert!(error.contains("full-r8-f32 full-r32"), "{error}");
    }

    #[test]
    fn a_change_leaves_the_rest() {
        let row = &named(&["full-bf16".into()]).unwrap()[0];
        let Floor::Step(change) = row.goals[0][0].floor else {
            panic!("{row:?}");
        };
        let other = row.work.changed(change);
        assert_eq!(other.moments, MomentDType::F32);
        assert_eq!(other.rank, row.work.rank);
        assert_eq!(row.goals[0][0].floor.to_string(), "f32 moments");
    }
}
