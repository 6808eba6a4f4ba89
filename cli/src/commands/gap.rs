//! `lora-pro gap`: how far a method's steps are from full fine-tuning's.

use clap::Args;
use lora_pro_finetune::{GapPoint, Trainable, gap_curve};

use crate::backends::Choice;
use crate::failure::Failure;
use crate::output::say;
use crate::progress::Progress;
use crate::run_args::RunArgs;

/// Measure the gap ||g - E|| / ||g|| over a run
///
/// g is the full gradient of the adapted weights, E what the adapter's step does to them, to first
/// order. 0 would be full fine-tuning. For LoRA-Pro E is the nearest that the rank allows; plain
/// LoRA's E grows with its factors, so the gap is also given after the best rescaling of E.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  lora-pro gap --method lora
  lora-pro gap --method lora-pro --mode full --rank 1 --every 10"
)]
pub struct GapArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Which backend steps; `lora-pro info` lists them
    #[arg(long, default_value = "auto", value_name = "NAME")]
    backend: String,
    /// Steps between two measurements
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
}

/// Trainable, measures, prints a table with bars.
pub fn run(args: &GapArgs) -> Result<(), Failure> {
    let choice = Choice::of(&args.backend)?;
    let plan = args.run.plan(&choice)?;
    if !matches!(plan.run.trainable, Trainable::Adapters { .. }) {
        return Err(Failure::Input(
            "full fine-tuning has no gap: its E is g".into(),
        ));
    }
    let mut trainer = plan.start(&plan.source.task, &choice)?;
    let progress = Progress::new();
    let told = |done, all| progress.set(done, all, "steps");
    let curve = gap_curve(&mut trainer, args.every as usize, &told)?;
    progress.finish();
    say(&table(&curve))?;
    match trainer.diverged() {
        true => Err(Failure::Run(format!(
            "training diverged at step {}",
            trainer.steps_done()
        ))),
        false => Ok(()),
    }
}

/// Characters of a bar that stands for 1.
const BAR: f64 = 40.0;

fn table(curve: &[GapPoint]) -> String {
    let head = format!(
        "{:>6}  {:>8}  {:>6}  {:>8}",
        "step", "loss", "gap", "rescaled"
    );
    let row = |point: &GapPoint| {
        let GapPoint { step, gap, loss } = point;
        // A gap over 1 has a full bar and an arrow.
        let bar = "#".repeat((BAR * gap.raw.min(1.0)).round() as usize);
        let more = if gap.raw > 1.0 { ">" } else { "" };
        let (raw, rescaled) = (gap.raw, gap.rescaled);
        format!("{step:>6}  {loss:>8.4}  {raw:>6.3}  {rescaled:>8.3}  {bar}{more}")
    };
    let rows = curve.iter().map(row);
    std::iter::once(head)
        .chain(rows)
        .collect::<Vec<_>>()
        .join("\n")
}
