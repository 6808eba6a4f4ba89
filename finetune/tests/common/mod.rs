//! A small problem that trains in milliseconds.

use lora_pro_core::{Backend, Error};
use lora_pro_finetune::{
    CONTENDERS, Contender, Dataset, Experiment, Pretraining, Problem, Trainer,
};
use lora_pro_reference::ReferenceBackend;

pub fn backend() -> Result<Box<dyn Backend>, Error> {
    Ok(Box::new(ReferenceBackend::new()))
}

pub fn experiment() -> Experiment {
    Experiment {
        hidden: vec![12, 8],
        pretraining: Pretraining {
            steps: 20,
            batch: 16,
            lr: 1e-2,
            seed: 0,
        },
        rank: 2,
        alpha: 4.0,
        batch: 16,
        steps: 20,
        seeds: vec![0, 1],
        gap_points: 3,
        ..Experiment::default()
    }
}

pub fn problem() -> Problem {
    Problem::prepare(
        &experiment(),
        &Dataset::digits().unwrap(),
        backend().unwrap(),
    )
    .unwrap()
}

#[allow(dead_code)] // Not every test file trains by name.
pub fn trainer(problem: &Problem, id: &str) -> Trainer {
    let contender: &Contender = CONTENDERS.iter().find(|one| one.id == id).unwrap();
    let run = contender.run(&experiment(), 1e-2, 5);
    Trainer::new(&problem.base, &problem.train, run, backend().unwrap()).unwrap()
}
