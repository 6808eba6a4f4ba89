//! `lora-pro train`: one run, saved as it goes.

use std::path::{Path, PathBuf};

use clap::Args;
use lora_pro_core::Error;
use lora_pro_finetune::{Examples, Network, Task, Trainable, Trainer};

use lora_pro_models::Parameters;

use crate::backends::Choice;
use crate::failure::Failure;
use crate::output::{note, say};
use crate::progress::Progress;
use crate::run_args::{Plan, RunArgs};

/// Names in the output folder, beside PEFT's.
const CHECKPOINT: &str = "checkpoint.safetensors";
const BASE: &str = "base_model.safetensors";

/// Fine-tune once; save a PEFT adapter and a checkpoint
///
/// The network is pre-trained first, in seconds, on a part of the data. Then its hidden weights
/// are trained by the chosen method. DIR gets adapter_config.json and adapter_model.safetensors
/// in PEFT's names, the network that they belong to as base_model.safetensors, and
/// checkpoint.safetensors, which holds everything that continuing needs. Every file is replaced
/// as a whole: interrupted at any moment, the run resumes to the last bit.
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
    let mut trainer = match saved {
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
    let place = Place {
        out: &args.out,
        checkpoint: &checkpoint,
        base: plan.source.model.as_deref().unwrap_or(Path::new(BASE)),
        every: args.save_every as usize,
    };
    train(&mut trainer, &place)?;
    result(
        &trainer,
        [task.validation.as_ref(), task.test.as_ref()],
        &args.out,
    )
}

/// The saved run, which must be the one that is asked for, if anything is.
fn resumed(
    plan: &Plan,
    task: &Task,
    checkpoint: &Path,
    choice: &Choice,
) -> Result<Trainer, Failure> {
    let trainer = Trainer::load(checkpoint, &task.base, task.train.clone(), choice.make()?)?;
    if !plan.by_default && *trainer.run() != plan.run {
        return Err(Failure::Input(format!(
            "{}: the checkpoint was made with other settings: omit the options to keep the saved ones",
            checkpoint.display()
        )));
    }
    let (done, all) = (trainer.steps_done(), trainer.run().steps);
    note(&format!("resumed after step {done} of {all}"));
    Ok(trainer)
}

/// Where a run is saved, and how often.
struct Place<'p> {
    out: &'p Path,
    checkpoint: &'p Path,
    /// What the adapter calls its frozen network.
    base: &'p Path,
    every: usize,
}

fn train(trainer: &mut Trainer, place: &Place<'_>) -> Result<(), Failure> {
    let progress = Progress::new();
    while !trainer.finished() {
        trainer.step()?;
        if trainer.diverged() {
            break;
        }
        let (done, all) = (trainer.steps_done(), trainer.run().steps);
        let loss = trainer.history().losses.last().copied().unwrap_or(f64::NAN);
        progress.set(done, all, &format!("steps, loss {loss:.4}"));
        if done % place.every == 0 && done < all {
            save(trainer, place)?;
        }
    }
    progress.finish();
    if trainer.diverged() {
        let step = trainer.steps_done();
        let message = format!("training diverged at step {step}: a number was not finite");
        return Err(Failure::Run(message));
    }
    save(trainer, place)
}

/// The adapter first: it is never older than the checkpoint.
fn save(trainer: &mut Trainer, place: &Place<'_>) -> Result<(), Failure> {
    if matches!(trainer.run().trainable, Trainable::Adapters { .. }) {
        let base = place.base.display().to_string();
        trainer.peft(&base)?.save(place.out)?;
    }
    Ok(trainer.save(place.checkpoint)?)
}

fn result(
    trainer: &Trainer,
    [validation, test]: [&dyn Examples; 2],
    out: &Path,
) -> Result<(), Failure> {
    let percent = |data| trainer.evaluate(data).map(|score| 100.0 * score.value);
    let losses = &trainer.history().losses;
    let loss = losses
        .last()
        .map_or("-".into(), |loss| format!("{loss:.4}"));
    say(&format!(
        "steps {}, loss {loss}, accuracy {:.1} % (validation {:.1} %), in {}",
        trainer.steps_done(),
        percent(test)?,
        percent(validation)?,
        out.display()
    ))
}
