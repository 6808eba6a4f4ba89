//! A small task that trains in milliseconds.

use lora_pro_core::{Backend, Error};
use lora_pro_finetune::{
    Dataset, Experiment, METHODS, MethodSpec, Pretraining, SmallTask, Task, Trainer,
};
use lora_pro_reference::ReferenceBackend;

pub fn backend() -> Result<Box<dyn Backend>, Error> {
    Ok(Box::new(ReferenceBackend::new()))
}

pub fn experiment() -> Experiment {
    Experiment {
        rank: 2,
        alpha: 4.0,
        batch: 16,
        steps: 20,
        seeds: vec![0, 1],
        gap_points: 3,
        ..Experiment::default()
    }
}

pub fn small() -> SmallTask {
    SmallTask {
        hidden: vec![12, 8],
        pretraining: Pretraining {
            steps: 20,
            batch: 16,
            lr: 1e-2,
            seed: 0,
        },
        ..SmallTask::default()
    }
}

pub fn task() -> Task {
    let digits = Dataset::digits().unwrap();
    small().prepare(&digits, backend().unwrap()).unwrap()
}

#[allow(dead_code)] // Not every test file trains by name.
pub fn trainer(task: &Task, id: &str) -> Trainer {
    let method: &MethodSpec = METHODS.iter().find(|one| one.id == id).unwrap();
    let run = method.run(&experiment(), 1e-2, 5);
    Trainer::new(&task.base, task.train.clone(), run, backend().unwrap()).unwrap()
}
