//! A method as an experiment runs it, perhaps with something changed.

use std::fmt;

use lora_pro_core::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::method_spec::{METHODS, MethodSpec};
use crate::run::RunConfig;
use crate::setup::Experiment;

/// A method of an experiment with something changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The method, by [`MethodSpec::id`].
    pub method: String,
    /// Fields of the experiment ([`CHANGEABLE`]) with other values; of `optimizer`, single fields.
    #[serde(flatten)]
    pub changes: Map<String, Value>,
}

/// The fields of an experiment that a variant may change; the others must be the same for all.
pub const CHANGEABLE: [&str; 7] = [
    "rank",
    "alpha",
    "optimizer",
    "schedule",
    "max_grad_norm",
    "head_lr",
    "lora_dropout",
];

/// What an experiment compares: a method, and the experiment as it is for this method.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// What tables call it.
    pub name: String,
    pub method: &'static MethodSpec,
    experiment: Experiment,
}

impl Candidate {
    /// Its run at a learning rate with a seed.
    pub fn run(&self, lr: f64, seed: u64) -> RunConfig {
        self.method.run(&self.experiment, lr, seed)
    }
}

impl Experiment {
    /// What is compared, in the order of [`Experiment::methods`].
    ///
    /// Rejects names that neither a method nor a variant has, variants that change what must be the
    /// same for all, and a list without full fine-tuning's weights first where distances are wanted.
    pub(crate) fn candidates(&self) -> Result<Vec<Candidate>, Error> {
        let first = self.methods.first().map_or("absent", String::as_str);
        if first == "absent" || (self.distance && first != "full-fine-tuning") {
            return Err(refuse("first method", first, "full-fine-tuning"));
        }
        self.methods.iter().map(|id| self.candidate(id)).collect()
    }

    fn candidate(&self, id: &str) -> Result<Candidate, Error> {
        let Some(variant) = self.variants.get(id) else {
            let method = self.method(id)?;
            return Ok(Candidate {
                name: method.name.into(),
                method,
                experiment: self.clone(),
            });
        };
        let fixed = |field: &&String| !CHANGEABLE.contains(&field.as_str());
        if let Some(field) = variant.changes.keys().find(fixed) {
            let expected = format!("one of {}", CHANGEABLE.join(", "));
            return Err(Error::invalid(
                &format!("variant `{id}`"),
                "field",
                field,
                expected,
            ));
        }
        Ok(Candidate {
            name: id.into(),
            method: self.method(&variant.method)?,
            experiment: self.with(variant.changes.clone())?,
        })
    }

    fn method(&self, id: &str) -> Result<&'static MethodSpec, Error> {
        MethodSpec::find(id).ok_or_else(|| {
            let variants = self.variants.keys().map(String::as_str);
            let known: Vec<&str> = METHODS.iter().map(|one| one.id).chain(variants).collect();
            refuse("method", id, format!("one of {}", known.join(", ")))
        })
    }

    /// The experiment with some fields replaced, of `optimizer` single ones. Where the steps change
    /// and the schedule does not, the schedule is stretched.
    ///
    /// Rejects unknown fields and values of the wrong kind.
    ///
    /// ```
    /// use lora_pro_finetune::Experiment;
    /// let changes = serde_json::json!({ "rank": 1, "optimizer": { "beta2": 0.95 } });
    /// let changes = changes.as_object().unwrap().clone();
    /// let experiment = Experiment::default().with(changes).unwrap();
    /// assert_eq!((experiment.rank, experiment.hyper.beta2), (1, 0.95));
    /// ```
    pub fn with(&self, mut changes: Map<String, Value>) -> Result<Experiment, Error> {
        let wrong = |error: serde_json::Error| Error::file("the experiment", error);
        let (steps, schedule) = (
            changes.contains_key("steps"),
            changes.contains_key("schedule"),
        );
        let optimizer = changes.remove("optimizer");
        let mut fields = serde_json::to_value(self).map_err(wrong)?;
        if let Some(fields) = fields.as_object_mut() {
            fields.extend(changes);
        }
        match (optimizer, fields.get_mut("optimizer")) {
            (Some(Value::Object(changes)), Some(Value::Object(hyper))) => hyper.extend(changes),
            (Some(other), _) => return Err(refuse("optimizer", other, "a table")),
            _ => {}
        }
        let mut experiment: Experiment = serde_json::from_value(fields).map_err(wrong)?;
        if steps && !schedule {
            experiment.schedule = self.schedule_over(experiment.steps);
        }
        Ok(experiment)
    }
}

fn refuse(field: &'static str, value: impl fmt::Display, expected: impl Into<String>) -> Error {
    Error::invalid("the experiment", field, value, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_variant(changes: Value) -> Experiment {
        let fields = serde_json::json!({
            "methods": ["full-fine-tuning", "lora", "changed"],
            "variants": { "changed": changes },
        });
        let fields = fields.as_object().unwrap().clone();
        Experiment::default().with(fields).unwrap()
    }

    #[test]
    fn a_variant_changes_its_own_runs_alone() {
        let changes = serde_json::json!({
            "method": "lora-pro-efficient",
            "rank": 2,
            "optimizer": { "beta2": 0.95 },
        });
        let found = with_variant(changes).candidates().unwrap();
        let [_, lora, changed] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(changed.name, "changed");
        assert_eq!(changed.method.id, "lora-pro-efficient");
        assert_eq!(changed.run(1e-3, 0).config.hyper.beta2, 0.95);
        assert_eq!(lora.run(1e-3, 0).config.hyper.beta2, 0.999);
    }

    #[test]
    fn refusals() {
        let error = |experiment: Experiment| experiment.candidates().unwrap_err().to_string();
        insta::assert_snapshot!(
            error(with_variant(serde_json::json!({ "method": "lora", "steps": 3 }))),
            @"variant `changed`: field is steps, but it must be one of rank, alpha, optimizer, schedule, max_grad_norm, head_lr, lora_dropout"
        );
        insta::assert_snapshot!(
            error(with_variant(serde_json::json!({ "method": "lora", "rank": "two" }))),
            @"the experiment: invalid type: string \"two\", expected usize"
        );
        insta::assert_snapshot!(
            error(with_variant(serde_json::json!({ "method": "loro" }))),
            @"the experiment: method is loro, but it must be one of full-fine-tuning, full-fine-tuning-all, lora, rslora, lora-plus, lora-pro-efficient, lora-pro-factored, lora-pro-full, changed"
        );
    }
}
