//! Logits and gradients of tiny random models against those that torch computed of them: see
//! `make_data.py`.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use lora_pro_models::{Forward, Input, Loaded, Precision, Task, Tokens, load};

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn expected(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder(name).join("expected.safetensors"), &Device::Cpu).unwrap()
}

fn tokens(expected: &HashMap<String, Tensor>) -> Tokens {
    let numbers = |name: &str| {
        let numbers = expected.get(name).map(|tensor| tensor.to_dtype(DType::U32));
        numbers.transpose().unwrap()
    };
    let ids = numbers("input_ids").unwrap();
    Tokens {
        mask: numbers("attention_mask").unwrap(),
        types: numbers("token_type_ids").unwrap_or(ids.zeros_like().unwrap()),
        wanted: numbers("wanted"),
        ids,
    }
}

/// The largest difference, over the largest entry of what is expected.
fn difference(got: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(got.dims(), expected.dims());
    let largest = |x: &Tensor| {
        let x = x.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        x.to_scalar::<f32>().unwrap()
    };
    largest(&(got - expected).unwrap()) / largest(expected)
}

fn compare(name: &str, task: Task, input: impl Fn(&HashMap<String, Tensor>) -> Input) {
    let expected = expected(name);
    let Loaded {
        model,
        mut parameters,
        made,
        unused,
        ..
    } = load(folder(name), task, 0, Precision::F32).unwrap();
    assert!(made.is_empty() && unused.is_empty(), "{made:?} {unused:?}");
    let trained = expected.keys().filter_map(|key| key.strip_prefix("grad."));
    trained.for_each(|name| parameters.train(name).unwrap());

    let pass = Forward::evaluation(&parameters);
    let logits = model.forward(&pass, &input(&expected)).unwrap();
    let worst = difference(&logits, &expected["logits"]);
    assert!(worst < 3e-6, "{name}: logits differ by {worst:e}");

    let loss = (logits * &expected["probe"]).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    for (tensor, var) in parameters.trained() {
        let expected = &expected[&format!("grad.{tensor}")];
        let worst = difference(gradients.get(var).unwrap(), expected);
        assert!(
            worst < 1e-5,
            "{name}: gradient of {tensor} differs by {worst:e}"
        );
    }
}

#[test]
fn bert() {
    let input = |expected: &_| Input::Tokens(tokens(expected));
    compare("bert", Task::Classify(3), input);
}

#[test]
fn llama() {
    let input = |expected: &_| Input::Tokens(tokens(expected));
    compare("llama", Task::LanguageModel, input);
}

#[test]
fn qwen2() {
    let input = |expected: &_| Input::Tokens(tokens(expected));
    compare("qwen2", Task::LanguageModel, input);
}

#[test]
fn vit() {
    let input =
        |expected: &HashMap<String, Tensor>| Input::Pixels(expected["pixel_values"].clone());
    compare("vit", Task::Classify(3), input);
}

/// Loss and gradients without the logits are those of the logits; a head that is trained needs them.
#[test]
fn a_decoder_tells_the_next_tokens() {
    let input = tokens(&expected("llama"));
    let next = Tensor::new(&[5u32, 0, 39, 7, 7, 1, 20], &Device::Cpu).unwrap();
    let told = |trained: &str| {
        let mut loaded = load(folder("llama"), Task::LanguageModel, 0, Precision::F32).unwrap();
        let watched = "model.layers.0.self_attn.q_proj.weight";
        loaded.parameters.train(watched).unwrap();
        if trained != watched {
            loaded.parameters.train(trained).unwrap();
        }
        let pass = Forward::evaluation(&loaded.parameters);
        let told = loaded.model.next_tokens(&pass, &input, &next).unwrap();
        let mut gradients = told.loss.backward().unwrap();
        let var = loaded
            .parameters
            .trained()
            .find(|(name, _)| *name == watched);
        (told, gradients.remove(var.unwrap().1).unwrap())
    };
    let (own, gradient) = told("model.layers.0.self_attn.q_proj.weight");
    let (composed, expected) = told("lm_head.weight");
    assert_eq!(own.right, composed.right);
    assert!(difference(&own.loss, &composed.loss) < 1e-6);
    assert!(difference(&gradient, &expected) < 1e-5);
}

/// Only the vector of a row's last token decides: padding makes no difference.
#[test]
fn a_decoder_classifies_by_the_last_token() {
    let loaded = load(folder("qwen2"), Task::Classify(3), 0, Precision::F32).unwrap();
    assert_eq!(loaded.made, ["score.weight"]);
    let pass = Forward::evaluation(&loaded.parameters);
    let logits = |ids: &[u32], mask: &[u32]| {
        let row = |values: &[u32]| {
            Tensor::new(values, &Device::Cpu)
                .unwrap()
                .unsqueeze(0)
                .unwrap()
        };
        let ids = row(ids);
        let types = ids.zeros_like().unwrap();
        let (mask, wanted) = (row(mask), None);
        let input = Input::Tokens(Tokens {
            ids,
            mask,
            types,
            wanted,
        });
        loaded.model.forward(&pass, &input).unwrap()
    };
    let alone = logits(&[3, 4, 5], &[1, 1, 1]);
    assert!(difference(&logits(&[3, 4, 5, 0, 0], &[1, 1, 1, 0, 0]), &alone) < 1e-6);
    assert!(difference(&logits(&[3, 4, 5, 6], &[1, 1, 1, 1]), &alone) > 1e-3);
}
