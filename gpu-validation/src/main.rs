//! The command `lora-pro-gpu-validation`. `--help` documents it, exit codes included.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use lora_pro_core::Error;
use lora_pro_cuda::Driver;
use lora_pro_gpu_validation::effort::Effort;
use lora_pro_gpu_validation::parts::{Bench, Part};
use lora_pro_gpu_validation::progress::{Progress, note};
use lora_pro_gpu_validation::report::{goal_row, word};
use lora_pro_gpu_validation::result::Outcome;
use lora_pro_gpu_validation::store::{About, Results, Store, Stored};

/// Prove and measure LoRA-Pro's CUDA backend on this machine's GPU
///
/// Holds the backend against every law, recorded trajectory and the reference; looks for the same
/// bits in every order, in graphs, on streams and in memory of any layout; makes thousands of
/// steps; runs NVIDIA's compute-sanitizer where it is installed; measures steps of Llama-2-7B's
/// adapters against how fast the device copies, and against torch where a Python has it.
///
/// This program is all that a machine needs beside an NVIDIA driver: for CUDA 13.0 or later, on a
/// GPU of compute capability 8.0 or later.
#[derive(Parser, Debug)]
#[command(
    version,
    name = "lora-pro-gpu-validation",
    verbatim_doc_comment,
    after_long_help = "\
Parts:
  conformance   all laws, recorded trajectories, the reference in f64, f32, bf16 and f16
  determinism   the same bits twice, alone, in a batch, in another order
  capture       a step as a CUDA graph gives the same bits
  memory        streams of the caller's; tensors anywhere in device memory
  endurance     10,000 steps of each method
  sanitizer     memcheck, racecheck, synccheck, initcheck on small cases
  timings       how long a step takes, and the share of the copy rate
  side-by-side  torch's fused AdamW, and LoRA-Pro in torch, on the same device
  small-cases   every kernel once: what the sanitizer runs; only where asked for

Results:
  DIR/parts/NAME.json  of each part, as soon as it has ended
  DIR/results.json     of all parts, with the goals
  DIR/DEVICE.md        a page of tables, for docs/gpu

A run that was interrupted goes on: what was found by the same commit on the same device with the
same effort is not looked for again; what was skipped is.

Examples:
  lora-pro-gpu-validation                                   everything: about half an hour
  lora-pro-gpu-validation --quick                           minutes; times prove nothing
  lora-pro-gpu-validation --only timings --only side-by-side --python venv/bin/python

Exit codes:
  0  every check passed or could not be made here; a goal that is missed is no failure
  1  a check failed
  2  no GPU, no driver, bad usage, or results cannot be written"
)]
struct Arguments {
    /// Where results go
    #[arg(long, value_name = "DIR", default_value = "gpu-results")]
    out: PathBuf,
    /// Little of everything, on small shapes
    #[arg(long)]
    quick: bool,
    /// Only this part; may be given more than once
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Number of the GPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: usize,
    /// A Python with torch, for the part side-by-side
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// NVIDIA's sanitizer, for the part sanitizer
    #[arg(long, value_name = "PATH", default_value = "compute-sanitizer")]
    sanitizer: PathBuf,
    /// Look for everything again
    #[arg(long)]
    fresh: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(Outcome::Fail) => ExitCode::from(1),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

fn run(args: &Arguments) -> Result<Outcome, Error> {
    let effort = if args.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let bench = Bench {
        gpu: Arc::new(Driver::new(args.device)?),
        effort,
        out: args.out.clone(),
        python: args.python.clone(),
        sanitizer: args.sanitizer.clone(),
    };
    let about = About::new(bench.gpu.as_ref(), effort.name)?;
    let store = Store::new(&args.out)?;
    note(&format!(
        "{}, {}, commit {}",
        about.device, about.code, about.commit
    ));
    for part in wanted(args) {
        let known = store.load(part, &about);
        // What was skipped may be there by now.
        let known = known.filter(|known| !args.fresh && known.outcome != Outcome::Skipped);
        let stored = match known {
            Some(stored) => stored,
            None => look(part, &bench, &about, &store)?,
        };
        tell(&stored);
    }
    publish(&store, about)
}

/// In their order, each once.
fn wanted(args: &Arguments) -> Vec<Part> {
    if args.only.is_empty() {
        return Part::ALL.to_vec();
    }
    let mut parts = args.only.clone();
    parts.sort();
    parts.dedup();
    parts
}

fn look(part: Part, bench: &Bench, about: &About, store: &Store) -> Result<Stored, Error> {
    note(&format!("{} ...", part.name()));
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock = Instant::now();
    let found = part.run(bench, &Progress::new());
    let stored = Stored {
        part,
        about: about.clone(),
        started: started.map_or(0, |since| since.as_secs()),
        seconds: clock.elapsed().as_secs_f64(),
        outcome: found.outcome(),
        found,
    };
    store.save(&stored)?;
    Ok(stored)
}

fn tell(stored: &Stored) {
    let (name, seconds) = (stored.part.name(), stored.seconds);
    note(&format!(
        "{name}: {} ({seconds:.0} s)",
        plain(stored.outcome)
    ));
    let bad = stored.found.findings.iter();
    for finding in bad.filter(|finding| finding.outcome != Outcome::Pass) {
        let outcome = plain(finding.outcome);
        note(&format!(
            "  {outcome}: {}: {}",
            finding.what, finding.detail
        ));
    }
}

fn plain(outcome: Outcome) -> &'static str {
    word(outcome).trim_matches('*')
}

/// From all parts that there are, also those of earlier runs.
fn publish(store: &Store, about: About) -> Result<Outcome, Error> {
    let parts = Part::ALL.into_iter().chain([Part::SmallCases]);
    let parts: Vec<Stored> = parts.filter_map(|part| store.load(part, &about)).collect();
    let results = Results::of(about, parts);
    for goal in results.goals.iter().filter(|goal| goal.measured.is_some()) {
        let [what, measured, graph, limit, met] = goal_row(goal);
        println!("{met:<4}  {measured:>9} ({graph} as a graph), should be {limit:<9}  {what}");
    }
    let files = store.publish(&results)?;
    for file in files {
        println!("{}", file.display());
    }
    Ok(results.outcome)
}
