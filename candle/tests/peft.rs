//! Adapter files: what is read, and what is refused by name.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device::Cpu, Tensor};
use candle_nn::Linear;
use lora_pro_candle::{CONFIG_FILE, LoraLinear, MODEL_FILE, PeftAdapter};
use lora_pro_core::{Error, Scale};
use serde_json::{Value, json};

fn base() -> Linear {
    Linear::new(Tensor::ones((6, 4), DType::F32, &Cpu).unwrap(), None)
}

/// An adapter of two modules and a head, as it is saved.
fn saved() -> tempfile::TempDir {
    let layers = ["encoder.0.query", "encoder.1.query"].map(|name| {
        let layer = LoraLinear::new(name, base(), 2, Scale::Alpha(4.0), 0).unwrap();
        let ones = Tensor::ones((6, 2), DType::F32, &Cpu).unwrap();
        layer.b().set(&ones).unwrap();
        layer
    });
    let head = Tensor::ones((3, 6), DType::F32, &Cpu).unwrap();
    let adapter = PeftAdapter::new("base", &layers).unwrap();
    let adapter = adapter.with_saved("classifier.weight", &head).unwrap();
    let folder = tempfile::tempdir().unwrap();
    adapter.save(folder.path()).unwrap();
    folder
}

fn set(folder: &Path, field: &str, value: Value) {
    let path = folder.join(CONFIG_FILE);
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[field] = value;
    fs::write(path, config.to_string()).unwrap();
}

fn refusal(folder: &Path) -> String {
    let text = PeftAdapter::load(folder).unwrap_err().to_string();
    text.replace(&format!("{}/", folder.display()), "")
}

#[test]
fn fields_that_change_the_result_are_refused_by_name() {
    for (field, value) in [
        ("lora_bias", json!(true)),
        ("bias", json!("all")),
        ("peft_type", json!("LOHA")),
        ("use_dora", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("target_parameters", json!(["experts.gate_up_proj"])),
        ("layer_replication", json!([[0, 2]])),
        ("alora_invocation_tokens", json!([1])),
        ("use_qalora", json!(true)),
        ("megatron_config", json!({ "a": 1 })),
        ("trainable_token_indices", json!([3])),
        ("velora_config", json!({ "num_groups": 4 })),
        ("ensure_weight_tying", json!(true)),
        ("a_field_of_the_future", json!(3)),
    ] {
        let folder = saved();
        set(folder.path(), field, value.clone());
        let value = value.as_str().map_or(value.to_string(), String::from);
        let expected = format!("{CONFIG_FILE}: {field} is `{value}`, but it must be ");
        let found = refusal(folder.path());
        assert!(found.starts_with(&expected), "{found}");
    }
}

#[test]
fn a_start_that_changed_the_model_is_refused_with_the_way_out() {
    for (start, remedy) in [
        ("pissa_niter_4", "path_initial_model_for_weight_conversion"),
        ("OLoRA", "path_initial_model_for_weight_conversion"),
        ("corda", "path_initial_model_for_weight_conversion"),
        ("loftq", "merge_and_unload"),
    ] {
        let folder = saved();
        set(folder.path(), "init_lora_weights", json!(start));
        let found = refusal(folder.path());
        assert!(found.contains("init_lora_weights is "), "{found}");
        assert!(found.contains(remedy), "{found}");
    }
    for start in [json!("gaussian"), json!("eva"), json!(false), json!(null)] {
        let folder = saved();
        set(folder.path(), "init_lora_weights", start);
        PeftAdapter::load(folder.path()).unwrap();
    }
}

#[test]
fn fields_that_say_nothing_are_read_over() {
    let folder = saved();
    for (field, value) in [
        ("lora_bias", json!(false)),
        ("layer_replication", json!(null)),
        ("loftq_config", json!({})),
        ("a_field_of_the_future", json!([])),
        ("megatron_core", json!("megatron.core")),
        ("peft_version", json!("0.21.2")),
        ("qalora_group_size", json!(16)),
    ] {
        set(folder.path(), field, value);
    }
    PeftAdapter::load(folder.path()).unwrap();
}

#[test]
fn tensors_that_nobody_asks_for_are_listed() {
    let folder = saved();
    set(folder.path(), "target_modules", json!(["0.query", "key"]));
    set(folder.path(), "modules_to_save", json!(null));
    let expected = format!(
        "{MODEL_FILE}: {CONFIG_FILE} does not ask for these tensors: \
         base_model.model.classifier.weight, base_model.model.encoder.1.query.lora_A.weight, \
         base_model.model.encoder.1.query.lora_B.weight"
    );
    assert_eq!(refusal(folder.path()), expected);
    // PEFT's class for this task trains the head without being told.
    set(folder.path(), "target_modules", json!(["query"]));
    set(folder.path(), "task_type", json!("SEQ_CLS"));
    let adapter = PeftAdapter::load(folder.path()).unwrap();
    let saved: Vec<&str> = adapter.saved().map(|(name, _)| name).collect();
    assert_eq!(saved, ["classifier.weight"]);
}

#[test]
fn factors_of_16_bits_become_f32() {
    let folder = saved();
    let weights = |adapter: &PeftAdapter| {
        let layers = adapter.layers(|_| Ok::<_, Error>(base())).unwrap();
        let merged = layers.iter().map(|layer| {
            let merged = layer.merged().unwrap();
            merged
                .weight()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        });
        merged.collect::<Vec<_>>().concat()
    };
    let exact = weights(&PeftAdapter::load(folder.path()).unwrap());
    let path = folder.path().join(MODEL_FILE);
    let tensors = candle_core::safetensors::load(&path, &Cpu).unwrap();
    for (dtype, unit) in [(DType::BF16, 8e-3), (DType::F16, 1e-3)] {
        let rounded: HashMap<String, Tensor> = tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.to_dtype(dtype).unwrap()))
            .collect();
        candle_core::safetensors::save(&rounded, &path).unwrap();
        let found = weights(&PeftAdapter::load(folder.path()).unwrap());
        let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
        let size = largest(&mut exact.iter().map(|x| x.abs()));
        let worst = largest(&mut found.iter().zip(&exact).map(|(x, y)| (x - y).abs()));
        assert!(worst > 0.0 && worst < unit * size, "{dtype:?}: {worst}");
    }
}

#[test]
fn what_is_damaged_or_of_another_shape_is_an_error() {
    let folder = saved();
    let path = folder.path().join(MODEL_FILE);
    set(folder.path(), "r", json!(3));
    let adapter = PeftAdapter::load(folder.path()).unwrap();
    let error = adapter.layers(|_| Ok(base())).unwrap_err().to_string();
    assert!(error.contains("encoder.0.query.lora_A.weight` is [2, 4], but [3, 4] is needed"));
    fs::rename(&path, folder.path().join("adapter_model.bin")).unwrap();
    assert!(refusal(folder.path()).contains("there is only adapter_model.bin"));
    fs::write(&path, "short").unwrap();
    assert!(refusal(folder.path()).contains("not a readable safetensors file"));
    fs::write(folder.path().join(CONFIG_FILE), "{}").unwrap();
    assert!(refusal(folder.path()).contains("missing field `peft_type`"));
}
