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
use crate::source::PretrainedModel;
use crate::train_log::{Evaluation, Step, TrainLog};

/// Names in the output folder, beside PEFT's.
const CHECKPOINT: &str = "checkpoint.safetensors";
const BASE: &str = "base_model.safetensors";
const LOG: &str = "log.jsonl";

/// Fine-tune once; save a PEFT adapter and a checkpoint
///
/// With --model, a pre-trained transformer learns to classify texts, to score them, or to write what
/// follows (--task). Without, a small network is pre-trained first, in seconds, on a part of the data,
/// and its hidden weights are trained by the chosen method.
///
/// DIR gets the adapter in PEFT's files, adapter_config.json and adapter_model.safetensors; and
/// checkpoint.safetensors, which holds everything that continuing needs. Beside them stand
/// model_config.json with the names of the classes and the tokenizer's files, or a small network
/// itself as base_model.safetensors. Full fine-tuning of a transformer has no adapter: at its end DIR
/// is a model in Hugging Face's layout. log.jsonl tells loss, learning rate and time of every step, and
/// every evaluation. Files are replaced as a whole: interrupted at any moment, the run resumes to the
/// last bit.
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
  lora-pro train --adapter run4 --data more.tsv --lr 1e-4 --out run6
  lora-pro train --model downloads/minilm --method full-ft --lr 1e-4 --out model

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
    /// far, or with full-ft the model: the one with the highest accuracy, or whatever the task measures
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
        false => plan.start(&task, &choice)?,
    };
    std::fs::create_dir_all(&args.out).map_err(|error| Error::file(&args.out, error))?;
    let model = plan.source.model.as_ref();
    match model {
        Some(model) if has_adapters(&trainer) => model.files.save_for_adapter(&args.out)?,
        Some(_) => {}
        None => trainer.base().save(&base)?,
    }
    let log = args.out.join(LOG);
    Training {
        log: TrainLog::open(&log, trainer.steps_done())?,
        trainer,
        task,
        out: &args.out,
        model,
        unit: match model {
            Some(_) => "tokens",
            None => "examples",
        },
        save_every: args.save_every as usize,
        evaluate_every: args.evaluate_every.map(|every| every as usize),
        patience: args.patience.map(|patience| patience as usize),
    }
    .run()
}

fn has_adapters(trainer: &Trainer) -> bool {
    matches!(trainer.run().trainable, Trainable::Adapters { .. })
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
    /// The pre-trained model, if it is one.
    model: Option<&'p PretrainedModel>,
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
            self.save_trained()?;
        }
        let test = test.transpose()?;
        Ok(self.log.evaluation(Evaluation {
            step,
            validation,
            test,
        })?)
    }

    /// The adapter first: it is never older than the checkpoint, unless it is the best of several. A
    /// whole model waits for the end of the run: it is large, and going on takes the checkpoint alone.
    fn save(&mut self) -> Result<(), Failure> {
        let kept = self.evaluate_every.is_some() && self.log.best().is_some();
        if !kept && (self.has_adapters() || self.trainer.finished()) {
            self.save_trained()?;
        }
        Ok(self.trainer.save(&self.out.join(CHECKPOINT))?)
    }

    /// The adapter; or the whole model, if it was one before and its weights are trained.
    fn save_trained(&self) -> Result<(), Failure> {
        match self.model {
            _ if self.has_adapters() => {
                let base = self.model.map_or(BASE, |model| &model.name);
                self.trainer.peft(base)?.save(self.out)?;
            }
            Some(model) => {
                let network = self.trainer.network()?;
                model.files.save_model(&network.parameters, self.out)?;
            }
            None => {}
        }
        Ok(())
    }

    fn has_adapters(&self) -> bool {
        has_adapters(&self.trainer)
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
        let [validation, test] = self.scores()?;
        let metric = test.metric.name();
        let [validation, test] = [validation, test].map(|score| 100.0 * score.value);
        let losses = &self.trainer.history().losses;
        let loss = losses
            .last()
            .map_or("-".into(), |loss| format!("{loss:.4}"));
        let best = self.log.best().filter(|_| self.evaluate_every.is_some());
        let best = best.map_or(String::new(), |best| {
            format!(", best at step {}", best.step)
        });
        say(&format!(
            "steps {}, loss {loss}{best}, {metric} {test:.1} % (validation {validation:.1} %), in {}",
            self.trainer.steps_done(),
            self.out.display()
        ))
    }
}
