//! A run that is interrupted and resumed ends with the same bits (law 14).

mod common;

use std::{fs, path::Path};

use common::{backend, task, trainer};
use lora_pro_core::{TensorFile, backup_path};
use lora_pro_finetune::{METHODS, Task, Trainer};

fn steps(trainer: &mut Trainer, count: usize) {
    (0..count).for_each(|_| trainer.step().unwrap());
}

/// Everything that the trainer holds.
fn content(trainer: &mut Trainer, folder: &Path) -> TensorFile {
    let path = folder.join("content.safetensors");
    trainer.save(&path).unwrap();
    TensorFile::load(&path).unwrap()
}

fn refusal(path: &Path, task: &Task) -> String {
    match Trainer::load(path, &task.base, task.train.clone(), backend().unwrap()) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_method_continues_to_the_last_bit() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let path = folder.path().join("run.safetensors");
    for method in &METHODS {
        let mut whole = trainer(&task, method.id);
        steps(&mut whole, 20);

        let mut first = trainer(&task, method.id);
        steps(&mut first, 11);
        first.save(&path).unwrap();
        drop(first);
        let mut second =
            Trainer::load(&path, &task.base, task.train.clone(), backend().unwrap()).unwrap();
        assert_eq!(second.steps_done(), 11);
        steps(&mut second, 9);

        assert!(second.finished(), "{}", method.name);
        let (whole, second) = (
            content(&mut whole, folder.path()),
            content(&mut second, folder.path()),
        );
        assert!(whole == second, "{} differs after resuming", method.name);
    }
}

#[test]
fn a_run_saved_before_its_first_step_resumes() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let path = folder.path().join("run.safetensors");
    let mut start = trainer(&task, "lora-pro-factored");
    start.save(&path).unwrap();
    let mut resumed =
        Trainer::load(&path, &task.base, task.train.clone(), backend().unwrap()).unwrap();
    steps(&mut start, 2);
    steps(&mut resumed, 2);
    assert!(content(&mut start, folder.path()) == content(&mut resumed, folder.path()));
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_one_before_it_loads() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let path = folder.path().join("run.safetensors");
    let mut run = trainer(&task, "lora-pro-full");
    for _ in 0..2 {
        steps(&mut run, 3);
        run.save(&path).unwrap();
    }
    let good = fs::read(&path).unwrap();

    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&path, &flipped).unwrap();
    let reason = refusal(&path, &task);
    assert!(
        reason.contains("its checksum is wrong: the file is damaged"),
        "{reason}"
    );
    assert!(reason.contains("previous.safetensors"), "{reason}");

    fs::write(&path, &good[..good.len() / 2]).unwrap();
    let reason = refusal(&path, &task);
    assert!(
        reason.contains("not a readable safetensors file"),
        "{reason}"
    );

    let earlier = Trainer::load(
        &backup_path(&path),
        &task.base,
        task.train.clone(),
        backend().unwrap(),
    )
    .unwrap();
    assert_eq!(earlier.steps_done(), 3);
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let path = folder.path().join("other.safetensors");
    let mut file = TensorFile::new();
    file.document = serde_json::json!({ "training": { "format_version": 99 } });
    file.save(&path).unwrap();
    let reason = refusal(&path, &task);
    assert!(
        reason.contains("its format version is 99, this program reads 2"),
        "{reason}"
    );
    TensorFile::new().save(&path).unwrap();
    let reason = refusal(&path, &task);
    assert!(reason.contains("it holds no training run"), "{reason}");
    let reason = refusal(&folder.path().join("none.safetensors"), &task);
    assert!(reason.contains("none.safetensors"), "{reason}");
}

#[test]
fn a_missing_tensor_is_named() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let path = folder.path().join("run.safetensors");
    trainer(&task, "lora").save(&path).unwrap();
    let whole = TensorFile::load(&path).unwrap();
    for name in whole.tensors.keys() {
        let mut less = whole.clone();
        less.tensors.remove(name);
        less.save(&path).unwrap();
        let reason = refusal(&path, &task);
        assert!(reason.contains("is missing"), "{name}: {reason}");
    }
}

#[test]
fn other_training_data_are_refused() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let path = folder.path().join("run.safetensors");
    trainer(&task, "lora").save(&path).unwrap();
    let error = Trainer::load(&path, &task.base, task.test.clone(), backend().unwrap())
        .err()
        .unwrap();
    let expected = "this run was trained on handwritten digits, not on the rows given now";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn another_frozen_network_is_refused() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let path = folder.path().join("run.safetensors");
    trainer(&task, "lora").save(&path).unwrap();
    let mut other = task.clone();
    other.base = trainer(&task, "lora").network().unwrap();
    assert!(Trainer::load(&path, &other.base, task.train.clone(), backend().unwrap()).is_ok());
    let mut trained = trainer(&task, "lora");
    steps(&mut trained, 1);
    other.base = trained.network().unwrap();
    let expected = "this run was trained on another frozen network than the one given now";
    assert!(refusal(&path, &other).contains(expected));
}
