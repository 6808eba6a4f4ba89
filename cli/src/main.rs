//! The command `lora-pro`. `--help` documents it, exit codes included.

mod backends;
mod bench_text;
mod commands;
mod failure;
mod output;
mod progress;
mod report;
mod run_args;
mod settings_file;
mod source;
mod subjects;
mod summary;
mod tables;
mod target_args;
mod threads;
mod train_log;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Training allocates and frees large tensors all the time. The system's allocator gives their pages
/// back each time and faults them in anew, which took a third of a small encoder's step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use commands::{bench, compare, conform, gap, info, merge, predict, replay, train};
use failure::Failure;

/// Kept stable: scripts depend on them.
macro_rules! exit_codes {
    () => {
        "\
Exit codes:
  0  done
  1  the run failed: training diverged, a replay is out of tolerance, an answer is wrong,
     a law is broken, a backend gave up
  2  bad usage or bad input: unknown options, values out of range, files that are missing,
     damaged or cannot be written"
    };
}

/// Fine-tune with LoRA-Pro, and see how near it comes to full fine-tuning
///
/// LoRA trains a weight W = W0 + s B A through two thin factors. LoRA-Pro adjusts the gradients of
/// A and B so that what a step does to W is as near to full fine-tuning's step as the rank allows
/// (arXiv 2407.18242). Without a command, this compares the methods on handwritten digits:
/// `lora-pro compare --data digits`.
///
/// Methods:
///   full-ft    trains the weights themselves: what the others are measured against
///   lora       AdamW on A and B, s = alpha / r
///   rslora     the same with s = alpha / sqrt(r)
///   lora+      the same with a 16 times larger learning rate for B
///   lora-pro   adjusted gradients, in one of four modes:
///     factored   follows full fine-tuning's AdamW with LoRA's memory (default)
///     full       the same with moments of the size of W
///     efficient  AdamW on the adjusted gradients of A and B
///     sgd        plain descent along the adjusted gradients
#[derive(Parser, Debug)]
#[command(version, name = "lora-pro", verbatim_doc_comment, after_help = exit_codes!(), after_long_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = concat!(
    "\
Examples:
  lora-pro                                   compare all methods, write report.html
  lora-pro compare --quick                   the same in seconds, with little to conclude from
  lora-pro train --out run1                  LoRA-Pro on the digits, adapter in run1
  lora-pro train --out run1 --resume         go on where it was interrupted
  lora-pro train --data rows.csv --method lora --rank 8 --lr 1e-3 --out run2
  lora-pro train --model downloads/minilm --data reviews.tsv --out run3
  lora-pro predict --adapter run3 --data new.tsv
  lora-pro merge --adapter run3 --out merged
  lora-pro gap --method lora                 how far LoRA's steps are from full fine-tuning's
  lora-pro replay conformance/vectors/00-full.safetensors --backend reference
  lora-pro bench                             how fast, against what this machine can do
  lora-pro conform --subject cpu             whether it obeys the laws
  lora-pro info                              versions, backends, this machine

Results go to standard output, progress and notes to standard error.

",
    exit_codes!()
);

#[derive(Subcommand, Debug)]
enum Command {
    Compare(compare::CompareArgs),
    Train(train::TrainArgs),
    Predict(predict::PredictArgs),
    Merge(merge::MergeArgs),
    Gap(gap::GapArgs),
    Replay(replay::ReplayArgs),
    Bench(bench::BenchArgs),
    Conform(conform::ConformArgs),
    /// Print versions, backends with what they can do, and this machine
    Info,
}

fn main() -> ExitCode {
    threads::tell();
    let Arguments { command } = Arguments::parse_from(arguments());
    let result = match &command {
        Command::Compare(args) => compare::run(args),
        Command::Train(args) => train::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Gap(args) => gap::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Conform(args) => conform::run(args),
        Command::Info => info::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

/// The arguments; none at all mean the comparison.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.len() <= 1 {
        arguments.resize(1, "lora-pro".into());
        arguments.push("compare".into());
    }
    arguments
}

fn report(failure: &Failure) -> ExitCode {
    if let Failure::Input(message) | Failure::Run(message) = failure {
        output::note(&format!("error: {message}"));
    }
    failure.exit_code()
}
