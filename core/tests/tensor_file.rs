//! Checkpoint files: whole, damaged, replaced.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lora_pro_core::{DType, TensorData, TensorFile, backup_path};
use serde_json::json;
use tempfile::TempDir;

fn file(number: u8) -> TensorFile {
    let tensor = TensorData {
        dtype: DType::F32,
        shape: vec![1, 2],
        bytes: vec![number; 8],
    };
    let mut file = TensorFile::new();
    file.document = json!({ "lr": 0.1 + 0.2, "number": number });
    file.tensors.insert("state.q.exp_avg".to_string(), tensor);
    file
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("checkpoint.safetensors");
    (folder, path)
}

#[test]
fn what_is_saved_is_loaded() {
    let (_folder, path) = place();
    file(7).save(&path).expect("written");
    assert_eq!(TensorFile::load(&path).expect("read"), file(7));
}

#[test]
fn the_file_before_stays() {
    let (folder, path) = place();
    for number in 1..=3 {
        file(number).save(&path).expect("written");
    }
    assert_eq!(TensorFile::load(&path).expect("read"), file(3));
    assert_eq!(
        TensorFile::load(&backup_path(&path)).expect("read"),
        file(2)
    );
    let left = std::fs::read_dir(folder.path()).expect("readable").count();
    assert_eq!(left, 2, "no temporary file is left");
}

#[test]
fn every_flipped_bit_and_every_missing_end_is_refused() {
    let (_folder, path) = place();
    file(7).save(&path).expect("written");
    let whole = std::fs::read(&path).expect("readable");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(&path, &damaged).expect("written");
        // A flip may turn one space of padding into another white space, and change nothing.
        if let Ok(loaded) = TensorFile::load(&path) {
            assert_eq!(loaded, file(7), "byte {at}");
        }
        std::fs::write(&path, &whole[..at]).expect("written");
        assert!(TensorFile::load(&path).is_err(), "cut at {at}");
    }
}

#[test]
fn a_damaged_file_is_refused_with_the_way_back() {
    let (_folder, path) = place();
    file(1).save(&path).expect("written");
    file(2).save(&path).expect("written");
    let mut damaged = std::fs::read(&path).expect("readable");
    if let Some(last) = damaged.last_mut() {
        *last ^= 1;
    }
    std::fs::write(&path, damaged).expect("written");
    let message = TensorFile::load(&path).expect_err("refused").to_string();
    assert!(message.contains("checksum is wrong"), "{message}");
    assert!(
        message.contains("checkpoint.previous.safetensors"),
        "{message}"
    );
    assert_eq!(
        TensorFile::load(&backup_path(&path)).expect("read"),
        file(1)
    );
}

#[test]
fn a_header_of_another_kind_is_refused() {
    let (_folder, path) = place();
    for header in ["5", "[1]", "null", "{}", "\"x\"", "{\"document\": 3}"] {
        let metadata = [("lora-pro".to_string(), header.to_string())].into();
        let bytes = lora_pro_core::encode_tensors(&BTreeMap::new(), metadata).expect("encoded");
        std::fs::write(&path, bytes).expect("written");
        assert!(TensorFile::load(&path).is_err(), "{header}");
    }
}
