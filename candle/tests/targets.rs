//! Rules for modules, against what PEFT did with them (`peft_targets.py`), and their errors.

use std::collections::BTreeMap;

use lora_pro_candle::{OneOrMore, PeftConfig, TargetModules, Targets};
use lora_pro_core::AdapterSpec;
use serde::Deserialize;

#[derive(Deserialize)]
struct Table {
    models: BTreeMap<String, Model>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Model {
    linear: Vec<String>,
    head: Option<String>,
}

#[derive(Deserialize)]
struct Case {
    model: String,
    config: PeftConfig,
    /// Rank and scale of each module; none where PEFT refuses.
    adapters: Option<Adapters>,
}

type Adapters = BTreeMap<String, (usize, f64)>;

fn adapters(config: &PeftConfig, model: &Model) -> Option<Adapters> {
    let modules = config.targets.select(&model.linear, model.head.as_deref());
    let patterns = config.targets.patterns().ok()?;
    let adapter = |module: String| {
        let (r, scale) = config.rank_and_scale(&module, &patterns).unwrap();
        let spec = AdapterSpec::new(&module, 64, 64, r).scale(scale);
        (module, (r, spec.s()))
    };
    Some(modules.ok()?.into_iter().map(adapter).collect())
}

#[test]
fn modules_ranks_and_scales_are_pefts() {
    let table: Table = serde_json::from_str(include_str!("peft_targets.json")).unwrap();
    assert!(table.cases.len() > 150);
    for case in &table.cases {
        let found = adapters(&case.config, &table.models[&case.model]);
        let targets = serde_json::to_string(&case.config.targets).unwrap();
        assert_eq!(found, case.adapters, "{} of {targets}", case.model);
    }
}

fn names(names: &[&str]) -> TargetModules {
    TargetModules::Names(names.iter().map(|name| name.to_string()).collect())
}

fn linear() -> Vec<String> {
    let layer = |layer| ["query", "dense"].map(|part| format!("layer.{layer}.{part}"));
    (0..6).flat_map(layer).collect()
}

fn refusal(change: impl FnOnce(&mut Targets)) -> String {
    let mut targets = Targets::new(names(&["query"]));
    change(&mut targets);
    let chosen = targets.select(&linear(), None);
    let checked = chosen.and_then(|chosen| targets.patterns()?.validate(&chosen));
    checked.unwrap_err().to_string()
}

#[test]
fn errors_teach() {
    let lines = [
        refusal(|targets| targets.target_modules = names(&["q_proj"])),
        refusal(|targets| targets.exclude_modules = Some(names(&["query"]))),
        refusal(|targets| targets.target_modules = TargetModules::Pattern(".*(query".into())),
        refusal(|targets| {
            targets.target_modules = TargetModules::Pattern("all-linear".into());
            targets.layers_to_transform = Some(OneOrMore::One(1));
        }),
        refusal(|targets| targets.layers_pattern = Some(OneOrMore::One("layer".into()))),
        refusal(|targets| {
            targets.rank_pattern.insert("dense".into(), 2);
        }),
        refusal(|targets| {
            targets.alpha_pattern.insert("[".into(), 2.0);
        }),
    ];
    let there = "such that a linear module is chosen; there are layer.0.query, layer.0.dense, \
                 layer.1.query, layer.1.dense, layer.2.query, layer.2.dense, layer.3.query, \
                 layer.3.dense and 4 more";
    let expected = [
        format!("target_modules is [\"q_proj\"], but it must be {there}"),
        format!(
            "target_modules without exclude_modules and modules_to_save is [\"query\"], but it must \
             be {there}"
        ),
        "target_modules is .*(query, but it must be a regular expression: Parsing error at position \
         8: Opening parenthesis without closing parenthesis"
            .into(),
        "layers_to_transform is set, but it must be absent where target_modules is a regular \
         expression or all-linear"
            .into(),
        "layers_pattern is set, but it must be absent without layers_to_transform".into(),
        "rank_pattern is dense, but it must be the name of a module with an adapter, or the end of \
         it"
        .into(),
        "alpha_pattern is [, but it must be a regular expression: Parsing error at position 1: \
         Invalid character class"
            .into(),
    ];
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(*line, format!("the adapter's configuration: {expected}"));
    }
}
