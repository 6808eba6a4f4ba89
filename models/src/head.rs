//! What `config.json` says of a model's head.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::load::Task;

/// The number of classes where a configuration does not say it, as in transformers.
const USUAL_CLASSES: usize = 2;

impl Task {
    /// What a model of this configuration was fine-tuned for. Says so where it was made for nothing
    /// that this crate knows.
    pub fn of(config: &Value) -> Result<Self, String> {
        let class = config["architectures"][0].as_str().unwrap_or_default();
        if class.ends_with("ForCausalLM") {
            return Ok(Task::LanguageModel);
        }
        let classifies = ["ForSequenceClassification", "ForImageClassification"];
        if !classifies.iter().any(|ending| class.ends_with(ending)) {
            return Err(format!(
                "architectures is `{class}`: a model without a head for a task, which must be fine-tuned first"
            ));
        }
        let classes = labels(config).map(|labels| labels.len());
        Self::of_outputs(config, classes.unwrap_or(USUAL_CLASSES))
    }

    /// What a head of so many outputs is for: one is a number, several are classes.
    ///
    /// Says so where the configuration tells otherwise.
    pub fn of_outputs(config: &Value, outputs: usize) -> Result<Self, String> {
        let problem = config["problem_type"].as_str();
        match (problem, outputs) {
            (Some("multi_label_classification"), _) => Err(
                "problem_type is `multi_label_classification`, but a text has one class here"
                    .into(),
            ),
            (Some("regression"), 2..) => Err(format!(
                "problem_type is `regression` with {outputs} outputs, but only one is supported"
            )),
            (_, 0) => Err("the head has no outputs".into()),
            (_, 1) => Ok(Task::Regress),
            _ => Ok(Task::Classify(outputs)),
        }
    }
}

/// The names of the outputs, `id2label`, in their order; `None` where it is absent or has gaps.
pub fn labels(config: &Value) -> Option<Vec<String>> {
    let names = config["id2label"]
        .as_object()
        .filter(|names| !names.is_empty())?;
    let name = |class: usize| names.get(&class.to_string())?.as_str().map(String::from);
    (0..names.len()).map(name).collect()
}

/// The names of outputs that have none of their own: `LABEL_0` and so on, as transformers makes them.
pub fn usual_labels(outputs: usize) -> Vec<String> {
    (0..outputs).map(|class| format!("LABEL_{class}")).collect()
}

/// Sets `id2label` and `label2id`.
pub fn set_labels(config: &mut Value, labels: &[String]) {
    let Some(config) = config.as_object_mut() else {
        return;
    };
    let id2label: BTreeMap<String, &String> = (0..labels.len())
        .map(|class| class.to_string())
        .zip(labels)
        .collect();
    let label2id: BTreeMap<&String, usize> = labels.iter().zip(0..).collect();
    config.insert("id2label".into(), json!(id2label));
    config.insert("label2id".into(), json!(label2id));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_back_in_their_order() {
        let mut config = json!({});
        assert_eq!(labels(&config), None);
        let names: Vec<String> = (0..12).map(|k| format!("class {}", 11 - k)).collect();
        set_labels(&mut config, &names);
        assert_eq!(labels(&config), Some(names));
        assert_eq!(config["label2id"]["class 11"], 0);
        config["id2label"] = json!({ "0": "a", "2": "b" });
        assert_eq!(labels(&config), None);
    }

    #[test]
    fn tasks_follow_from_the_configuration() {
        let of = |config: Value| Task::of(&config);
        let bert = json!(["BertForSequenceClassification"]);
        assert_eq!(of(json!({ "architectures": bert })), Ok(Task::Classify(2)));
        let one = json!({ "0": "LABEL_0" });
        let config = json!({ "architectures": bert, "id2label": one });
        assert_eq!(of(config), Ok(Task::Regress));
        let config = json!({ "architectures": ["LlamaForCausalLM"] });
        assert_eq!(of(config), Ok(Task::LanguageModel));
        let error = of(json!({ "architectures": ["BertModel"] })).unwrap_err();
        assert!(
            error.contains("`BertModel`: a model without a head"),
            "{error}"
        );
        let many = json!({ "architectures": bert, "problem_type": "multi_label_classification" });
        assert!(of(many).unwrap_err().contains("a text has one class"));
    }
}
