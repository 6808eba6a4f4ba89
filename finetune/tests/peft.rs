//! Adapter files have PEFT's names and shapes, and give the trained network back.

mod common;

use std::fs;

use common::{backend, task, trainer};
use lora_pro_candle::{CONFIG_FILE, MODEL_FILE, PeftAdapter, TargetModules, Targets};
use lora_pro_core::Scale;
use lora_pro_finetune::{Network, Trainer};
use lora_pro_models::Parameters;

fn weights(network: &Network) -> Vec<Vec<f32>> {
    let tensors = network.parameters.tensors().values();
    tensors
        .map(|tensor| tensor.flatten_all().unwrap().to_vec1().unwrap())
        .collect()
}

#[test]
fn saved_loaded_and_merged_it_is_the_trained_network() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    for id in ["lora-pro-factored", "rslora"] {
        let mut trainer = trainer(&task, id);
        (0..5).for_each(|_| trainer.step().unwrap());
        let adapter = trainer.peft("digits-mlp").unwrap();
        adapter.save(folder.path()).unwrap();
        let loaded = PeftAdapter::load(folder.path()).unwrap();
        assert_eq!(loaded, adapter);
        let base = folder.path().join("base_model.safetensors");
        task.base.save(&base).unwrap();
        let read = Network {
            parameters: Parameters::load(&base).unwrap(),
            ..task.base.clone()
        };
        let merged = read.adapted(&loaded).unwrap().merged().unwrap();
        assert_eq!(weights(&merged), weights(&trainer.network().unwrap()));
        assert_ne!(weights(&merged), weights(&task.base));
    }
}

#[test]
fn names_and_configuration_are_pefts() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let adapter = trainer(&task, "lora").peft("digits-mlp").unwrap();
    let shapes: Vec<_> = adapter
        .tensors
        .iter()
        .map(|(name, data)| (name.as_str(), &data.shape[..]))
        .collect();
    let expected: [(&str, &[usize]); 6] = [
        ("base_model.model.head.bias", &[10]),
        ("base_model.model.head.weight", &[10, 8]),
        ("base_model.model.layers.0.lora_A.weight", &[2, 64]),
        ("base_model.model.layers.0.lora_B.weight", &[12, 2]),
        ("base_model.model.layers.1.lora_A.weight", &[2, 12]),
        ("base_model.model.layers.1.lora_B.weight", &[8, 2]),
    ];
    assert_eq!(shapes, expected);
    adapter.save(folder.path()).unwrap();
    let text = fs::read_to_string(folder.path().join(CONFIG_FILE)).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("peft_type", serde_json::json!("LORA")),
        ("task_type", serde_json::json!(null)),
        ("r", serde_json::json!(2)),
        ("lora_alpha", serde_json::json!(4.0)),
        ("use_rslora", serde_json::json!(false)),
        ("bias", serde_json::json!("none")),
        (
            "target_modules",
            serde_json::json!(["layers.0", "layers.1"]),
        ),
        ("modules_to_save", serde_json::json!(["head"])),
        ("rank_pattern", serde_json::json!({})),
        ("alpha_pattern", serde_json::json!({})),
        ("base_model_name_or_path", serde_json::json!("digits-mlp")),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
}

#[test]
fn what_is_no_adapter_is_refused() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let error = trainer(&task, "full-fine-tuning")
        .peft("digits-mlp")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "the run: method is full fine-tuning, but it must be one with adapters"
    );

    let refusal = || PeftAdapter::load(folder.path()).unwrap_err().to_string();
    assert!(refusal().contains(CONFIG_FILE));
    let adapter = trainer(&task, "lora").peft("digits-mlp").unwrap();
    adapter.save(folder.path()).unwrap();
    fs::write(folder.path().join(MODEL_FILE), b"short").unwrap();
    assert!(refusal().contains("not a readable safetensors file"));
    fs::write(folder.path().join(CONFIG_FILE), b"{}").unwrap();
    assert!(refusal().contains("missing field `peft_type`"));

    let mut wrong = adapter.clone();
    wrong
        .config
        .targets
        .rank_pattern
        .insert("layers.1".into(), 3);
    let error = task.base.adapted(&wrong).unwrap_err().to_string();
    let expected =
        "tensor `base_model.model.layers.1.lora_A.weight` is [2, 12], but [3, 12] is needed";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn targets_choose_modules_ranks_and_alphas() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let mut run = trainer(&task, "lora").run().clone();
    let mut start = |change: fn(&mut Targets)| {
        run.targets = Targets::default();
        change(&mut run.targets);
        let backend = backend().unwrap();
        Trainer::new(&task.base, task.train.clone(), run.clone(), backend)
    };
    let one = start(|targets| targets.exclude_modules = Some(TargetModules::Pattern(".*0".into())));
    let one = one.unwrap().peft("digits-mlp").unwrap();
    assert_eq!(one.modules().collect::<Vec<_>>(), ["layers.1"]);

    let mut two = start(|targets| {
        targets.rank_pattern.insert("1".into(), 3);
        targets.alpha_pattern.insert("layers.[0]".into(), 5.0);
    })
    .unwrap();
    two.step().unwrap();
    let adapter = two.peft("digits-mlp").unwrap();
    adapter.save(folder.path()).unwrap();
    let loaded = PeftAdapter::load(folder.path()).unwrap();
    let patterns = loaded.config.targets.patterns().unwrap();
    let found = ["layers.0", "layers.1"].map(|module| {
        let found = loaded.config.rank_and_scale(module, &patterns);
        found.unwrap()
    });
    assert_eq!(found, [(2, Scale::Alpha(5.0)), (3, Scale::Alpha(4.0))]);
    let merged = task.base.adapted(&loaded).unwrap().merged().unwrap();
    assert_eq!(weights(&merged), weights(&two.network().unwrap()));

    let error = start(|targets| {
        targets.rank_pattern.insert("layers.7".into(), 3);
    });
    assert!(
        error
            .err()
            .unwrap()
            .to_string()
            .contains("rank_pattern is layers.7")
    );
    let error = start(|targets| targets.target_modules = TargetModules::Names(vec!["q".into()]));
    assert!(
        error
            .err()
            .unwrap()
            .to_string()
            .contains("there are layers.0, layers.1")
    );
}
