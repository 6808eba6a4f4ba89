//! What is made of a fine-tuned transformer: predictions, a merged model, further training.

mod common;

use std::fs;
use std::path::Path;

use common::{folder, lora_pro, refusal, succeeds, tiny};
use insta::assert_snapshot;
use lora_pro_core::read_tensors;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A short run on `bert` with adapters on some modules, in a folder with the texts.
fn trained(more: &[&str]) -> TempDir {
    let folder = folder();
    tiny::model(folder.path(), "bert");
    tiny::texts(folder.path());
    let common = [
        "train",
        "--backend=reference",
        "--model=bert",
        "--data=labelled.tsv",
        "--steps=4",
        "--batch=8",
        "--rank=2",
        "--lr=1e-2",
        "--out=run",
    ];
    succeeds(folder.path(), &[&common, more].concat());
    folder
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The lines that `predict` writes.
fn predict(folder: &Path, options: &[&str]) -> Vec<Value> {
    let said = succeeds(folder, &[&["predict"], options].concat());
    let lines = said.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The probabilities in the order of the classes, row after row.
fn probabilities(lines: &[Value]) -> Vec<f64> {
    let classes = ["bad", "good", "so-so"];
    let one = |line: &Value| classes.map(|class| line["probabilities"][class].as_f64().unwrap());
    lines.iter().flat_map(one).collect()
}

fn assert_near(one: &[Value], other: &[Value]) {
    let pairs = probabilities(one).into_iter().zip(probabilities(other));
    assert_eq!(one.len(), other.len());
    for (one, other) in pairs {
        assert!((one - other).abs() < 1e-6, "{one} {other}");
    }
}

#[test]
fn texts_are_predicted_with_and_without_labels() {
    let folder = trained(&[]);
    let (path, run) = (folder.path(), folder.path().join("run"));
    let config = json_file(&run.join("model_config.json"));
    assert_eq!(
        config["id2label"],
        json!({ "0": "bad", "1": "good", "2": "so-so" })
    );
    let length = &json_file(&run.join("tokenizer_config.json"))["model_max_length"];
    assert_eq!(*length, json!(12));

    let lines = predict(path, &["--adapter=run", "--data=texts.tsv"]);
    assert_eq!(lines.len(), 60);
    for (k, line) in lines.iter().enumerate() {
        assert_eq!(line["row"], json!(k + 1));
        let found = line["probabilities"].as_object().unwrap();
        let values = found.values().map(|value| value.as_f64().unwrap());
        assert!((values.clone().sum::<f64>() - 1.0).abs() < 1e-6);
        let most = values.fold(0.0, f64::max);
        assert_eq!(found[line["label"].as_str().unwrap()], json!(most));
    }

    let arguments = ["--model=bert", "--data=labelled.tsv", "--batch=7"];
    let arguments = [
        &["predict", "--adapter=run", "--out=found.jsonl"],
        &arguments[..],
    ]
    .concat();
    let said = succeeds(path, &arguments);
    assert_eq!(said.stdout, "");
    let text = fs::read_to_string(path.join("found.jsonl")).unwrap();
    let found: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_near(&found, &lines);
    let right = lines.iter().zip(0..);
    let right = right
        .filter(|(line, k)| line["label"] == ["bad", "good", "so-so"][k % 3])
        .count();
    let percent = 100.0 * right as f64 / 60.0;
    let expected = format!("accuracy {percent:.1} %: {right} of 60");
    assert_eq!(said.stderr.lines().last(), Some(&*expected));
    let said = succeeds(path, &["predict", "--adapter=run", "--data=texts.tsv"]);
    assert!(!said.stderr.contains("accuracy"), "{}", said.stderr);
}

#[test]
fn a_merged_model_says_the_same() {
    let folder = trained(&["--modules-to-save=pooler", "--max-length=9"]);
    let path = folder.path();
    succeeds(path, &["merge", "--adapter=run", "--out=merged"]);
    let adapted = predict(path, &["--adapter=run", "--data=texts.tsv"]);
    let merged = predict(path, &["--model=merged", "--data=texts.tsv"]);
    assert_near(&adapted, &merged);
    assert!(
        probabilities(&adapted)
            != probabilities(
                &predict(path, &["--model=bert", "--data=texts.tsv"])
                    .iter()
                    .map(named)
                    .collect::<Vec<_>>()
            )
    );
    let config = json_file(&path.join("merged/config.json"));
    assert_eq!(
        config["architectures"],
        json!(["BertForSequenceClassification"])
    );
    assert_eq!(config["problem_type"], json!("single_label_classification"));
    assert_eq!(config["dtype"], json!("float32"));
    assert_eq!(config["label2id"]["so-so"], json!(2));
    let mut names: Vec<_> = fs::read_dir(path.join("merged")).unwrap().collect();
    names.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    let names: Vec<_> = names
        .into_iter()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        names,
        [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    assert_eq!(
        json_file(&path.join("merged/tokenizer_config.json"))["model_max_length"],
        9
    );

    let again = ["merge", "--adapter=run", "--out=merged"];
    assert_snapshot!(refusal(path, &again), @"error: merged: the folder is not empty: a model is written to a new one");
    fs::write(path.join("run/adapter_model.safetensors"), b"short").unwrap();
    let other = ["merge", "--adapter=run", "--out=other"];
    assert!(refusal(path, &other).contains("adapter_model.safetensors: "));
    assert!(!path.join("other").exists());
    let hidden = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(
        hidden
            .filter(|name| name.to_string_lossy().starts_with('.'))
            .count(),
        0
    );
}

/// The model's own names of the classes are `LABEL_0` and so on.
fn named(line: &Value) -> Value {
    let all = &line["probabilities"];
    let classes = ["bad", "good", "so-so"].into_iter().zip(0..);
    let named: serde_json::Map<String, Value> = classes
        .map(|(name, k)| (name.into(), all[format!("LABEL_{k}")].clone()))
        .collect();
    json!({ "probabilities": named })
}

#[test]
fn full_fine_tuning_writes_a_model() {
    let folder = trained(&["--method=full-ft"]);
    let path = folder.path();
    assert!(!path.join("run/model_config.json").exists());
    let lines = predict(path, &["--model=run", "--data=labelled.tsv"]);
    assert!(
        probabilities(&lines)
            .iter()
            .all(|p| (0.0..=1.0).contains(p))
    );
    let weights = |folder: &str| {
        let file = fs::read(path.join(folder).join("model.safetensors")).unwrap();
        read_tensors(&file).unwrap()
    };
    let [before, after] = [weights("bert"), weights("run")];
    let changed = after
        .iter()
        .filter(|(name, tensor)| before[*name] != **tensor);
    // Six maps in each of two layers, the pooler's, and weight and bias of the head.
    assert_eq!(changed.count(), 15);
    let resume = [
        "train",
        "--backend=reference",
        "--model=bert",
        "--data=labelled.tsv",
        "--out=run",
        "--resume",
    ];
    succeeds(path, &resume);
    assert_eq!(weights("run"), after);
}

#[test]
fn training_goes_on_from_an_adapter() {
    let options = [
        "--rank-pattern=value=3",
        "--method=rslora",
        "--modules-to-save=pooler",
    ];
    let folder = trained(&options);
    let path = folder.path();
    let train = |options: &[&'static str]| {
        let common = ["train", "--backend=reference", "--batch=8"];
        let data = options.iter().any(|option| option.starts_with("--data"));
        let data = if data {
            &[][..]
        } else {
            &["--data=labelled.tsv"]
        };
        [&common, data, options].concat()
    };
    let still = train(&["--adapter=run", "--steps=1", "--lr=0", "--out=still"]);
    succeeds(path, &still);
    let tensors = |run: &str| {
        let file = fs::read(path.join(run).join("adapter_model.safetensors")).unwrap();
        read_tensors(&file).unwrap()
    };
    assert_eq!(tensors("run"), tensors("still"));
    let fixed = |run: &str| {
        let config = json_file(&path.join(run).join("adapter_config.json"));
        [
            "r",
            "lora_alpha",
            "use_rslora",
            "rank_pattern",
            "modules_to_save",
            "target_modules",
        ]
        .map(|field| config[field].clone())
    };
    assert_eq!(fixed("run"), fixed("still"));

    fs::write(path.join("more.toml"), "adapter = \"run\"\n").unwrap();
    succeeds(
        path,
        &train(&["--config=more.toml", "--steps=3", "--out=more"]),
    );
    assert!(
        tensors("run")
            .iter()
            .all(|(name, tensor)| tensors("more")[name] != *tensor)
    );
    // The checkpoint has all that is needed: the adapter is not asked for again.
    let resume = [
        "train",
        "--backend=reference",
        "--model=bert",
        "--data=labelled.tsv",
        "--out=more",
        "--resume",
    ];
    let said = succeeds(path, &resume);
    assert!(
        said.stderr.contains("resumed after step 3 of 3"),
        "{}",
        said.stderr
    );
    let gap = [
        "gap",
        "--adapter=run",
        "--data=labelled.tsv",
        "--batch=8",
        "--steps=2",
    ];
    succeeds(path, &gap);

    let refused = |options: &[&'static str]| {
        let from = [&["--adapter=run", "--out=other"], options].concat();
        refusal(path, &train(&from))
    };
    assert_snapshot!(refused(&["--rank=4"]), @"error: rank does not go with the adapter in run: it has ranks, alphas and modules of its own");
    assert_snapshot!(refused(&["--target-modules=query"]), @"error: target_modules does not go with the adapter in run: it has ranks, alphas and modules of its own");
    assert_snapshot!(refused(&["--method=full-ft"]), @"error: method full-ft does not go with the adapter in run: full fine-tuning has none; merge it first");
    let other = "bad\tlong\ngood\tbright\nworse\tslow\n".repeat(10);
    fs::write(path.join("other.tsv"), format!("label\ttext\n{other}")).unwrap();
    assert_snapshot!(refused(&["--data=other.tsv"]), @"error: run: its classes are bad, good, so-so, but those of the data are bad, good, worse");
    assert!(!path.join("other").exists());
}

#[test]
fn a_language_model_tells_losses() {
    let folder = folder();
    let path = folder.path();
    tiny::model(path, "llama");
    let lines =
        "{\"prompt\": \"a film\", \"completion\": \"to see\"}\n{\"text\": \"long and slow\"}\n";
    fs::write(path.join("data.jsonl"), lines.repeat(10)).unwrap();
    let arguments = [
        "train",
        "--backend=reference",
        "--model=llama",
        "--task=lm",
        "--data=data.jsonl",
        "--steps=2",
        "--batch=4",
        "--rank=2",
        "--out=run",
    ];
    let said = succeeds(path, &arguments);
    assert!(said.stdout.contains("tokens right"), "{}", said.stdout);
    let said = succeeds(path, &["predict", "--adapter=run", "--data=data.jsonl"]);
    let lines: Vec<Value> = said
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 20);
    for (k, line) in lines.iter().enumerate() {
        assert_eq!(line["row"], json!(k + 1));
        let loss = line["loss"].as_f64().unwrap();
        assert!((line["perplexity"].as_f64().unwrap() - loss.exp()).abs() < 1e-9 * loss.exp());
        assert_eq!(line["loss"], lines[k % 2]["loss"]);
    }
    assert!(said.stderr.contains("perplexity "), "{}", said.stderr);
    let refused = ["predict", "--adapter=run", "--data=none.tsv"];
    assert!(refusal(path, &refused).contains("JSON lines"));
}

#[test]
fn what_cannot_be_predicted_with_is_refused() {
    let folder = trained(&[]);
    let path = folder.path();
    let refused = |options: &[&str]| {
        let data = options.iter().any(|option| option.starts_with("--data"));
        let data = if data { &[][..] } else { &["--data=texts.tsv"] };
        refusal(path, &[&["predict"], data, options].concat())
    };
    assert_snapshot!(refused(&[]), @r"
    error: the following required arguments were not provided:
      <--model <DIR|NAME>|--adapter <DIR>>

    Usage: lora-pro predict --data <FILE> <--model <DIR|NAME>|--adapter <DIR>>

    For more information, try '--help'.
    ");
    assert_snapshot!(refused(&["--model=run"]), @"error: run: it holds an adapter, not a model");
    assert_snapshot!(refused(&["--adapter=bert"]), @"error: bert/adapter_config.json: No such file or directory (os error 2)");
    assert_snapshot!(refused(&["--adapter=run", "--max-length=0"]), @"error: the tokenizer: max_length is 0, but it must be more than the special tokens of a pair of texts");
    assert_snapshot!(refused(&["--adapter=run", "--out=no/found.jsonl"]), @"error: no/found.jsonl: there is no such folder to write it to");
    fs::write(
        path.join("other.tsv"),
        "label\ttext\nbad\tlong\nworse\tslow\n",
    )
    .unwrap();
    assert_snapshot!(refused(&["--adapter=run", "--data=other.tsv"]), @"error: other.tsv: line 3: label `worse` is none of the classes that are trained");
    fs::write(
        path.join("bert/config.json"),
        fs::read_to_string(path.join("bert/config.json"))
            .unwrap()
            .replace("BertForSequenceClassification", "BertModel"),
    )
    .unwrap();
    assert_snapshot!(refused(&["--model=bert"]), @"error: bert: architectures is `BertModel`: a model without a head for a task, which must be fine-tuned first");
    tiny::model(path, "llama");
    assert_snapshot!(refused(&["--adapter=run", "--model=llama"]), @"error: llama: tensor `score.weight` is missing, and the adapter has none either");
    succeeds(
        path,
        &[
            "train",
            "--backend=reference",
            "--pretrain-steps=1",
            "--steps=1",
            "--out=digits",
        ],
    );
    assert_snapshot!(refused(&["--adapter=digits"]), @"error: digits: its frozen network is base_model.safetensors beside it, made of numbers: it takes no text");
    let outcome = lora_pro(
        path,
        &[
            "train",
            "--adapter=digits",
            "--out=x",
            "--backend=reference",
        ],
    );
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}
