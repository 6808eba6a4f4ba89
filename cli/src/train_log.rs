//! What happened in a run, a line of JSON for each step and each evaluation. After an interruption
//! the lines of steps that the checkpoint does not have are dropped: they are taken again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use lora_pro_core::{Error, write_atomically};
use lora_pro_finetune::Score;
use serde::{Deserialize, Serialize};

/// The file of a run.
pub struct TrainLog {
    path: PathBuf,
    file: File,
    evaluations: Vec<Evaluation>,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Step(Step),
    Evaluation(Evaluation),
}

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Counted from 1.
    pub step: usize,
    /// On the step's batch, before the step.
    pub loss: f64,
    /// Learning rate of A, with the schedule.
    pub lr: f64,
    /// Largest |lr dA| / |A| over the adapters.
    pub update: f64,
    /// Tokens, or examples where they have none.
    pub tokens: usize,
    /// Wall-clock time of the step.
    pub seconds: f64,
}

/// How well the network did after a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Steps taken.
    pub step: usize,
    /// On the validation split.
    pub validation: Score,
    /// On the test split, where the validation is better than all before.
    pub test: Option<Score>,
}

impl TrainLog {
    /// The log of a run that has taken so many steps.
    ///
    /// Rejects a file of which a line is not a log's, naming the line.
    pub fn open(path: &Path, steps: usize) -> Result<Self, Error> {
        let refuse = |error: std::io::Error| Error::file(path, error);
        let text = match path.exists() && steps > 0 {
            true => std::fs::read_to_string(path).map_err(refuse)?,
            false => String::new(),
        };
        let (mut kept, mut evaluations) = (String::new(), Vec::new());
        // The end of a line is what makes it whole.
        for (number, line) in (1..).zip(text.split_inclusive('\n')) {
            if !line.ends_with('\n') {
                break;
            }
            let known = serde_json::from_str(line)
                .map_err(|error| Error::file(path, format!("line {number}: {error}")))?;
            let (step, evaluation) = match known {
                Line::Step(Step { step, .. }) => (step, None),
                Line::Evaluation(evaluation) => (evaluation.step, Some(evaluation)),
            };
            if step <= steps {
                kept.push_str(line);
                evaluations.extend(evaluation);
            }
        }
        write_atomically(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(refuse)?;
        Ok(TrainLog {
            path: path.into(),
            file,
            evaluations,
        })
    }

    /// Adds a step.
    pub fn step(&mut self, step: Step) -> Result<(), Error> {
        self.write(&Line::Step(step))
    }

    /// Adds an evaluation. For text there would be a mark for each example: they are left out.
    pub fn evaluation(&mut self, mut evaluation: Evaluation) -> Result<(), Error> {
        let scores = [Some(&mut evaluation.validation), evaluation.test.as_mut()];
        scores
            .into_iter()
            .flatten()
            .for_each(|score| score.right.clear());
        self.write(&Line::Evaluation(evaluation.clone()))?;
        self.evaluations.push(evaluation);
        Ok(())
    }

    /// The best evaluation so far; of equals, the first.
    pub fn best(&self) -> Option<&Evaluation> {
        self.evaluations.iter().rev().find(|one| one.test.is_some())
    }

    /// Evaluations since the best.
    pub fn without_better(&self) -> usize {
        let later = self.evaluations.iter().rev();
        later.take_while(|one| one.test.is_none()).count()
    }

    fn write(&mut self, line: &Line) -> Result<(), Error> {
        let refuse = |error: std::io::Error| Error::file(&self.path, error);
        let text = serde_json::to_string(line).map_err(|error| refuse(error.into()))?;
        self.file
            .write_all(format!("{text}\n").as_bytes())
            .map_err(refuse)
    }
}
