//! `lora-pro replay`: every recorded trajectory, and what becomes of damaged ones.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use common::{folder, lora_pro, refusal, succeeds, vector, vectors};
use insta::assert_snapshot;
use lora_pro_core::{DType, TensorData, encode_tensors, read_metadata, read_tensors};

/// A case taken apart, to be damaged.
struct CaseFile {
    tensors: BTreeMap<String, TensorData>,
    metadata: HashMap<String, String>,
}

impl CaseFile {
    fn of(name: &str) -> Self {
        let bytes = fs::read(vector(name)).unwrap();
        CaseFile {
            tensors: read_tensors(&bytes).unwrap(),
            metadata: read_metadata(&bytes).unwrap(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        encode_tensors(&self.tensors, self.metadata.clone()).unwrap()
    }
}

/// What the program says about a case that `damage` was done to; nothing may be written.
fn refused(damage: impl FnOnce(&mut CaseFile)) -> String {
    let mut parts = CaseFile::of("00-full.safetensors");
    damage(&mut parts);
    refused_bytes(&parts.bytes())
}

fn refused_bytes(bytes: &[u8]) -> String {
    let folder = folder();
    fs::write(folder.path().join("case.safetensors"), bytes).unwrap();
    let arguments = [
        "replay",
        "case.safetensors",
        "--backend",
        "reference",
        "--out",
        "out.safetensors",
    ];
    let message = refusal(folder.path(), &arguments);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "something was written"
    );
    message
}

fn set(key: &'static str, value: &'static str) -> impl FnOnce(&mut CaseFile) {
    move |parts| {
        parts.metadata.insert(key.into(), value.into());
    }
}

#[test]
fn every_recorded_trajectory_is_followed() {
    let folder = folder();
    let mut count = 0;
    for entry in fs::read_dir(vectors()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "safetensors") {
            continue;
        }
        let case = path.display().to_string();
        let said = succeeds(folder.path(), &["replay", &case, "--backend", "reference"]);
        assert!(
            said.stdout.contains("worst scaled error"),
            "{case}: {}",
            said.stdout
        );
        assert_eq!(said.stderr, "");
        count += 1;
    }
    assert!(count >= 208, "only {count} trajectories were found");
}

#[test]
fn the_output_holds_every_moment() {
    let folder = folder();
    let case = vector("00-full.safetensors");
    let case = case.to_str().unwrap();
    for (name, dtype) in [
        ("f64", DType::F64),
        ("f32", DType::F32),
        ("bf16", DType::Bf16),
    ] {
        succeeds(
            folder.path(),
            &["replay", case, "--dtype", name, "--out", "out.safetensors"],
        );
        let bytes = fs::read(folder.path().join("out.safetensors")).unwrap();
        let tensors = read_tensors(&bytes).unwrap();
        assert_eq!(tensors.len(), 14);
        assert!(tensors.values().all(|tensor| tensor.dtype == dtype));
        assert_eq!(
            (&tensors["A.6"].shape, &tensors["B.0"].shape),
            (&vec![3, 10], &vec![12, 3])
        );
        let metadata = read_metadata(&bytes).unwrap();
        assert_eq!(metadata["backend"], "cpu");
        assert_eq!(metadata["dtype"], name);
        assert_eq!(metadata["lr"], "0.01");
    }
}

/// A wrong recording is a failed run, not bad input; the factors are written all the same.
#[test]
fn out_of_tolerance_is_exit_code_1() {
    let folder = folder();
    let mut parts = CaseFile::of("00-full.safetensors");
    let last = parts.tensors.get_mut("B.4").unwrap();
    let exponent = last.bytes.len() - 2;
    last.bytes[exponent] ^= 1;
    fs::write(folder.path().join("case.safetensors"), parts.bytes()).unwrap();
    let outcome = lora_pro(
        folder.path(),
        &[
            "replay",
            "case.safetensors",
            "--backend",
            "reference",
            "--out",
            "out.safetensors",
        ],
    );
    assert_eq!(outcome.code, Some(1));
    assert_eq!(outcome.stderr, "error: B.4 is out of tolerance\n");
    assert!(folder.path().join("out.safetensors").exists());
}

#[test]
fn a_case_without_recorded_factors_is_replayed() {
    let folder = folder();
    let mut parts = CaseFile::of("00-full.safetensors");
    parts
        .tensors
        .retain(|name, _| name.starts_with('g') || name.ends_with(".0"));
    fs::write(folder.path().join("case.safetensors"), parts.bytes()).unwrap();
    let said = succeeds(folder.path(), &["replay", "case.safetensors"]);
    assert_snapshot!(said.stdout, @"6 steps; the case records no factors to compare with");
    assert_snapshot!(said.stderr, @"backend: cpu ([...])");
}

#[test]
fn metadata_out_of_range_is_refused() {
    assert_snapshot!(refused(set("beta1", "1.0")), @"error: case.safetensors: its metadata: beta1 is 1, but it must be in [0, 1)");
    assert_snapshot!(refused(set("lr", "NaN")), @"error: case.safetensors: its metadata: lr is NaN, but it must be finite and at least 0");
    assert_snapshot!(refused(set("eps", "-1e-8")), @"error: case.safetensors: its metadata: eps is -0.00000001, but it must be positive and finite");
    assert_snapshot!(refused(set("scale", "0.0")), @"error: case.safetensors: adapter `case`: scale is 0, but it must be positive and finite");
    assert_snapshot!(refused(set("r", "0")), @"error: case.safetensors: adapter `case`: r is 0, but it must be at least 1");
    assert_snapshot!(refused(set("r", "11")), @"error: case.safetensors: adapter `case`: r is 11, but it must be at most min(m, n) = 10");
    assert_snapshot!(refused(set("momentum", "0.9")), @"error: case.safetensors: its metadata: momentum is 0.9, but it must be 0: only method sgd has momentum, the others have beta1");
    assert_snapshot!(refused(set("steps", "0")), @"error: case.safetensors: its metadata `steps` is 0, but it must be at least 1");
    assert_snapshot!(refused(set("damping", "absolute -1")), @"error: case.safetensors: its metadata: damping (absolute) is -1, but it must be positive and finite");
}

#[test]
fn metadata_that_is_absent_or_unreadable_is_refused() {
    let without = |key: &'static str| {
        refused(move |parts| {
            parts.metadata.remove(key);
        })
    };
    assert_snapshot!(without("lr"), @"error: case.safetensors: its metadata has no `lr`");
    assert_snapshot!(without("method"), @"error: case.safetensors: its metadata has no `method`");
    assert_snapshot!(refused(|parts| parts.metadata.clear()), @"error: case.safetensors: its metadata has no `m`");
    assert_snapshot!(refused(set("m", "twelve")), @"error: case.safetensors: its metadata `m` is `twelve`, which is not a whole number");
    assert_snapshot!(refused(set("m", "-12")), @"error: case.safetensors: its metadata `m` is `-12`, which is not a whole number");
    assert_snapshot!(refused(set("method", "magic")), @"error: case.safetensors: its metadata `method`: `magic` is not a method: use one of lora sgd efficient factored full");
    assert_snapshot!(refused(set("x", "y")), @"error: case.safetensors: its metadata `x`: `y` is not a choice of X: use one of sylvester symmetric zero");
    assert_snapshot!(refused(set("damping", "much")), @"error: case.safetensors: its metadata `damping`: `much` is not a damping: use none, absolute:D, relative:C or cutoff:C");
    assert_snapshot!(refused(set("quirk", "odd")), @"error: case.safetensors: its metadata `quirk` is `odd`, but only `bf16_square` is known");
    assert_snapshot!(refused(set("decay_base", "true")), @"error: case.safetensors: its metadata has `decay_base`, which a case cannot prescribe");
    assert_snapshot!(refused(set("amsgrad", "maybe")), @"error: case.safetensors: its metadata `amsgrad` is `maybe`, which is not true or false");
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let without = |name: &'static str| {
        refused(move |parts| {
            parts.tensors.remove(name);
        })
    };
    assert_snapshot!(without("A.0"), @"error: case.safetensors: tensor `A.0` is missing");
    assert_snapshot!(without("g.3"), @"error: case.safetensors: tensor `g.3` is missing");
    assert_snapshot!(without("B.5"), @"error: case.safetensors: tensor `B.5` is missing");
    assert_snapshot!(refused(set("steps", "7")), @"error: case.safetensors: tensor `g.7` is missing");
    assert_snapshot!(refused(set("steps", "5")), @"error: case.safetensors: tensor `A.6` does not belong to a case of 5 steps");
    assert_snapshot!(refused(set("m", "13")), @"error: case.safetensors: tensor `B.0` has shape [12, 3], but m x r = [13, 3] is needed");
    let transposed = |parts: &mut CaseFile| {
        parts.tensors.get_mut("g.2").unwrap().shape.reverse();
    };
    assert_snapshot!(refused(transposed), @"error: case.safetensors: tensor `g.2` has shape [10, 12], but m x n = [12, 10] is needed");
    let flat = |parts: &mut CaseFile| {
        parts.tensors.get_mut("A.0").unwrap().shape = vec![30];
    };
    assert_snapshot!(refused(flat), @"error: case.safetensors: tensor `A.0` has shape [30], but r x n = [3, 10] is needed");
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let put = |name: &'static str, value: f64| {
        refused(move |parts| {
            let at = 8 * 11;
            let bytes = &mut parts.tensors.get_mut(name).unwrap().bytes;
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        })
    };
    assert_snapshot!(put("g.2", f64::NAN), @"error: case.safetensors: tensor `g.2` at [1, 1] is NaN, but every entry must be finite");
    assert_snapshot!(put("B.0", f64::INFINITY), @"error: case.safetensors: tensor `B.0` at [3, 2] is inf, but every entry must be finite");
    assert_snapshot!(put("A.6", f64::NEG_INFINITY), @"error: case.safetensors: tensor `A.6` at [1, 1] is -inf, but every entry must be finite");
}

#[test]
fn files_that_are_no_safetensors_are_refused() {
    assert_snapshot!(refused_bytes(b""), @"error: case.safetensors: not a readable safetensors file (header too small)");
    assert_snapshot!(refused_bytes(b"not a case at all"), @"error: case.safetensors: not a readable safetensors file (header too large)");
    let folder = folder();
    assert_snapshot!(refusal(folder.path(), &["replay", "no.safetensors"]), @r"
    backend: cpu ([...])
    error: no.safetensors: No such file or directory (os error 2)
    ");
    assert_snapshot!(refusal(folder.path(), &["replay", "."]), @r"
    backend: cpu ([...])
    error: .: Is a directory (os error 21)
    ");
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    let folder = folder();
    let case = vector("00-sgd.safetensors");
    let case = case.to_str().unwrap();
    let to = |out| {
        refusal(
            folder.path(),
            &["replay", case, "--backend", "reference", "--out", out],
        )
    };
    assert_snapshot!(to("no/such/folder/out.safetensors"), @"error: no/such/folder/out.safetensors: No such file or directory (os error 2)");
    fs::create_dir(folder.path().join("taken")).unwrap();
    assert_snapshot!(to("taken"), @"error: taken: Is a directory (os error 21)");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "a leftover"
    );
}

/// Truncations and flipped bits anywhere: an answer or a refusal, never a panic, and never an
/// output beside a refusal.
#[test]
fn damage_anywhere_never_panics() {
    let folder = folder();
    let whole = fs::read(vector("04-full.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let cuts = (0..40).map(|k| whole[..k * whole.len() / 40].to_vec());
    // Twice as many in the header, where damage is harder to survive.
    let places = (0..160)
        .map(|k| k * 7919 % header)
        .chain((0..80).map(|k| k * 104_729 % whole.len()));
    let flips = places.enumerate().map(|(k, at)| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (k % 8);
        bytes
    });
    for (k, bytes) in cuts.chain(flips).enumerate() {
        unharmed(folder.path(), k, &bytes);
    }
}

fn unharmed(folder: &Path, k: usize, bytes: &[u8]) {
    let out = folder.join("out.safetensors");
    fs::write(folder.join("case.safetensors"), bytes).unwrap();
    let arguments = [
        "replay",
        "case.safetensors",
        "--backend",
        "reference",
        "--out",
        "out.safetensors",
    ];
    let outcome = lora_pro(folder, &arguments);
    match outcome.code {
        Some(0) => assert!(out.exists(), "damage {k}"),
        Some(1) => {}
        Some(2) => assert!(!out.exists(), "damage {k}: {outcome:?}"),
        _ => panic!("damage {k}: {outcome:?}"),
    }
    if out.exists() {
        fs::remove_file(out).unwrap();
    }
}
