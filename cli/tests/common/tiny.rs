//! Tiny random models with a tokenizer, and text for them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// The tokens of the models' vocabulary that have words.
const WORDS: &str = "a film to see again long slow dull bright and of the it is was bad good so-so";

/// A model of the crate `lora-pro-models`, `bert` (with a classifier of three classes) or `llama`, as
/// the folder of the same name in `folder`.
pub fn model(folder: &Path, name: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data");
    let to = folder.join(name);
    fs::create_dir(&to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(from.join(name).join(file), to.join(file)).unwrap();
    }
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].into_iter();
    let tokens = special.chain(WORDS.split_whitespace()).zip(0..);
    let vocabulary: Map<String, Value> = tokens
        .map(|(token, id)| (token.into(), json!(id)))
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    });
    fs::write(to.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    to
}

/// Writes 60 texts with and without labels: `labelled.tsv`, `texts.tsv`.
pub fn texts(folder: &Path) {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let (mut labelled, mut texts) = (String::from("label\ttext\n"), String::from("text\n"));
    for k in 0..60 {
        let label = ["bad", "good", "so-so"][k % 3];
        let some: Vec<&str> = (0..2 + k % 7)
            .map(|i| words[(7 * k + 3 * i) % 15])
            .collect();
        let text = format!("{} {label}\n", some.join(" "));
        labelled += &format!("{label}\t{text}");
        texts += &text;
    }
    fs::write(folder.join("labelled.tsv"), labelled).unwrap();
    fs::write(folder.join("texts.tsv"), texts).unwrap();
}
