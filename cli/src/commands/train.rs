//! `lora-pro train`: one run, saved as it goes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use lora_pro_core::Error;
use lora_pro_finetune::{History, Network, Score, Task, Trainable, Trainer};

use lora_pro_models::Parameters;

use crate::backends::Choice;
use crate::failure::Failure;
use crate::output::{note, say};
use crate::progress::Progress;
use crate::run_args::{Plan, RunArgs};
use crate::train_log::{Evaluation, Step, TrainLog};

/// Names in the output folder, beside PEFT's.
const CHECKPOINT: &str = "checkpoint.safetensors";
const BASE: &str = "base_model.safetensors";
const LOG: &str = "log.jsonl";

/// Fine-tune once; save a PEFT adapter and a checkpoint
///
/// The network is pre-trained first, in seconds, on a part of the data. Then its hidden weights
/// are trained by the chosen method. DIR gets adapter_config.json and adapter_model.safetensors
/// in PEFT's names, the network that they belong to as base_model.safetensors, and
/// checkpoint.safetensors, which holds everything that continuing needs. log.jsonl tells loss,
/// learning rate and time of every step, and every evaluation. Files are replaced as a whole:
/// interrupted at any moment, the run resumes to the last bit.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  lora-pro train --out run1
  lora-pro train --method lora-pro --mode full --rank 2 --lr 3e-3 --out run2
  lora-pro train --data rows.csv --config run.toml --out run3 --resume
  lora-pro train --model downloads/minilm --target-modules query,value \
    --rank-pattern value=16 --modules-to-save pooler --out run4
  lora-pro train --model downloads/minilm --epochs 5 --evaluate-every 50 --patience 3 --out run5

A configuration file sets the same and more; `[optimizer]` takes every field of the optimizer:
  method = \"lora-pro\"
  mode = \"factored\"
  rank = 8
  [optimizer]
  lr = 1e-3
  schedule = { cosine = { warmup = 20, total = 300 } }
  [optimizer.groups.head]
  lr = 1e-2"
)]
pub struct TrainArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Which backend steps; `lora-pro info` lists them
    #[arg(long, default_value = "auto", value_name = "NAME")]
    backend: String,
    /// Folder for the adapter and the checkpoint
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on from the checkpoint in DIR; without one, start
    #[arg(long)]
    resume: bool,
    /// Steps between two savings
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    save_every: u32,
    /// Steps between two evaluations on the validation split. The adapter in DIR is then the best so
    /// far: the one with the highest accuracy, or whatever the task measures
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    evaluate_every: Option<u32>,
    /// Stop early, after K evaluations in a row that were not better than the best
    #[arg(long, value_name = "K", requires = "evaluate_every", value_parser = clap::value_parser!(u32).range(1..))]
    patience: Option<u32>,
}

/// Trainable to the end, saving as it goes.
pub fn run(args: &TrainArgs) -> Result<(), Failure> {
    let choice = Choice::of(&args.backend)?;
    let plan = args.run.plan(&choice)?;
    let checkpoint = args.out.join(CHECKPOINT);
    let saved = checkpoint.exists();
    if saved && !args.resume {
        return Err(Failure::Input(format!(
            "{} is there already: --resume goes on with it, another --out starts anew",
            checkpoint.display()
        )));
    }
    let mut task = plan.source.task.clone();
    let base = args.out.join(BASE);
    if plan.source.model.is_none() && saved && base.exists() {
        // Pre-trained anew it might differ in its last bits on another machine.
        task.base = Network {
            parameters: Parameters::load(&base)?,
            ..task.base
        };
    }
    let trainer = match saved {
        true => resumed(&plan, &task, &checkpoint, &choice)?,
        false => Trainer::new(
            &task.base,
            task.train.clone(),
            plan.run.clone(),
            choice.make()?,
        )?,
    };
    std::fs::create_dir_all(&args.out).map_err(|error| Error::file(&args.out, error))?;
    if plan.source.model.is_none() {
        trainer.base().save(&base)?;
    }
    let log = args.out.join(LOG);
    Training {
        log: TrainLog::open(&log, trainer.steps_done())?,
        trainer,
        task,
        out: &args.out,
        base: plan.source.model.as_deref().unwrap_or(Path::new(BASE)),
        unit: match plan.source.model {
            Some(_) => "tokens",
            None => "examples",
        },
        save_every: args.save_every as usize,
        evaluate_every: args.evaluate_every.map(|every| every as usize),
        patience: args.patience.map(|patience| patience as usize),
    }
    .run()
}

/// The saved run, which must be the one that is asked for, if anything is.
fn resumed(
    plan: &Plan,
    task: &Task,
    checkpoint: &Path,
    choice: &Choice,
) -> Result<Trainer, Failure> {
    let trainer = Trainer::load(checkpoint, &task.base, task.train.clone(), choice.make()?)?;
    let difference = trainer.run().difference(&plan.run);
    if let Some(difference) = difference.filter(|_| !plan.by_default) {
        return Err(Failure::Input(format!(
            "{}: the checkpoint was made with {difference}: omit the options to keep what is saved",
            checkpoint.display()
        )));
    }
    let (done, all) = (trainer.steps_done(), trainer.run().steps);
    note(&format!("resumed after step {done} of {all}"));
    Ok(trainer)
}

/// A run, where it is saved, and how often.
struct Training<'p> {
    trainer: Trainer,
    task: Task,
    log: TrainLog,
    out: &'p Path,
    /// What the adapter calls its frozen network.
    base: &'p Path,
    /// What [`Trainer::tokens`] counts.
    unit: &'static str,
    save_every: usize,
    evaluate_every: Option<usize>,
    patience: Option<usize>,
}

impl Training<'_> {
    fn run(mut self) -> Result<(), Failure> {
        let progress = Progress::new();
        while !self.trainer.finished() && !self.out_of_patience() {
            self.step(&progress)?;
            if self.trainer.diverged() {
                break;
            }
            let (done, last) = (self.trainer.steps_done(), self.trainer.finished());
            if self
                .evaluate_every
                .is_some_and(|every| last || done % every == 0)
            {
                self.evaluate()?;
            }
            if !last && done % self.save_every == 0 {
                self.save()?;
            }
        }
        progress.finish();
        if self.out_of_patience() {
            let count = self.log.without_better();
            note(&format!(
                "stopped early: {count} evaluations without a better one"
            ));
        }
        if self.trainer.diverged() {
            let step = self.trainer.steps_done();
            let message = format!("training diverged at step {step}: a number was not finite");
            return Err(Failure::Run(message));
        }
        self.save()?;
        self.result()
    }

    fn step(&mut self, progress: &Progress) -> Result<(), Failure> {
        let (start, tokens) = (Instant::now(), self.trainer.tokens());
        self.trainer.step()?;
        let History { losses, updates } = self.trainer.history();
        let (Some(&loss), Some(&update)) = (losses.last(), updates.last()) else {
            return Ok(());
        };
        if self.trainer.diverged() {
            return Ok(());
        }
        let (done, run) = (self.trainer.steps_done(), self.trainer.run());
        let lr = run.config.hyper.lr * run.config.schedule.factor(done as u64);
        let seconds = start.elapsed().as_secs_f64();
        let (speed, unit) = (tokens as f64 / seconds, self.unit);
        let now = format!("steps, loss {loss:.4}, lr {lr:.1e}, {speed:.0} {unit}/s");
        progress.set(done, run.steps, &now);
        Ok(self.log.step(Step {
            step: done,
            loss,
            lr,
            update,
            tokens,
            seconds,
        })?)
    }

    fn out_of_patience(&self) -> bool {
        let patience = self.patience.unwrap_or(usize::MAX);
        self.log.without_better() >= patience
    }

    /// Keeps the adapter if it is the best so far.
    fn evaluate(&mut self) -> Result<(), Failure> {
        let network = self.trainer.network()?;
        let validation = network.evaluate(self.task.validation.as_ref())?;
        let best = self.log.best();
        let better = best.is_none_or(|best| validation.is_better_than(&best.validation));
        let test = better.then(|| network.evaluate(self.task.test.as_ref()));
        let step = self.trainer.steps_done();
        if better {
            self.save_adapter()?;
        }
        let test = test.transpose()?;
        Ok(self.log.evaluation(Evaluation {
            step,
            validation,
            test,
        })?)
    }

    /// The adapter first: it is never older than the checkpoint, unless it is the best of several.
    fn save(&mut self) -> Result<(), Failure> {
        if self.evaluate_every.is_none() || self.log.best().is_none() {
            self.save_adapter()?;
        }
        Ok(self.trainer.save(&self.out.join(CHECKPOINT))?)
    }

    fn save_adapter(&self) -> Result<(), Failure> {
        if matches!(self.trainer.run().trainable, Trainable::Adapters { .. }) {
            let base = self.base.display().to_string();
            self.trainer.peft(&base)?.save(self.out)?;
        }
        Ok(())
    }

    /// How well the network does that is kept, on the validation split and the test split.
    fn scores(&self) -> Result<[Score; 2], Failure> {
        if let (Some(_), Some(best)) = (self.evaluate_every, self.log.best())
            && let Some(test) = &best.test
        {
            return Ok([best.validation.clone(), test.clone()]);
        }
        let network = self.trainer.network()?;
        let (validation, test) = (self.task.validation.as_ref(), self.task.test.as_ref());
        Ok([network.evaluate(validation)?, network.evaluate(test)?])
    }

    fn result(&self) -> Result<(), Failure> {
        let [validation, test] = self.scores()?.map(|score| 100.0 * score.value);
        let losses = &self.trainer.history().losses;
        let loss = losses
            .last()
            .map_or("-".into(), |loss| format!("{loss:.4}"));
        let best = self.log.best().filter(|_| self.evaluate_every.is_some());
        let best = best.map_or(String::new(), |best| {
            format!(", best at step {}", best.step)
        });
        say(&format!(
            "steps {}, loss {loss}{best}, accuracy {test:.1} % (validation {validation:.1} %), in {}",
            self.trainer.steps_done(),
            self.out.display()
        ))
    }
}
