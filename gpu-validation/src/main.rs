//! The command `lora-pro-gpu-validation`. `--help` documents it, exit codes included.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use lora_pro_core::Error;
use lora_pro_cuda::Driver;
use lora_pro_gpu_validation::ctx::Ctx;
use lora_pro_gpu_validation::effort::Effort;
use lora_pro_gpu_validation::goals::goals;
use lora_pro_gpu_validation::progress::{SuiteProgress, note};
use lora_pro_gpu_validation::report::{Results, goal_row, page, word};
use lora_pro_gpu_validation::result::Outcome;
use lora_pro_gpu_validation::store::{Environment, Store, Stored, pretty};
use lora_pro_gpu_validation::suites::Suite;

/// Prove and measure LoRA-Pro's CUDA backend on this machine's GPU
///
/// Runs the backend's tests on the GPU; replays graphs; makes thousands of steps; runs NVIDIA's
/// compute-sanitizer where it is installed; measures steps of Llama-2-7B's adapters against how fast
/// the device copies, and against torch where a Python has it.
///
/// A machine needs an NVIDIA driver for CUDA 13.0 or later and a GPU of compute capability 8.0 or
/// later; for the suite `tests` also cargo and the sources, or a folder of test programs.
#[derive(Parser, Debug)]
#[command(
    version,
    name = "lora-pro-gpu-validation",
    verbatim_doc_comment,
    after_long_help = "\
Suites:
  tests         the tests of the CUDA backend: laws, recorded trajectories, the reference,
                the same bits in every order and layout, rejected steps
  capture       a step as a CUDA graph gives the same bits
  endurance     10,000 steps of each method
  sanitizer     memcheck, racecheck, synccheck, initcheck on small cases
  timings       how long a step takes, and the share of the copy rate
  side-by-side  torch's fused AdamW, and LoRA-Pro in torch, on the same device
  small-cases   every kernel once: what the sanitizer runs; only where asked for

Results:
  DIR/suites/NAME.json  of each suite, as soon as it has ended
  DIR/results.json     of all suites, with the goals
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
    /// Only this suite; may be given more than once
    #[arg(long, value_name = "SUITE")]
    only: Vec<Suite>,
    /// Number of the GPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: usize,
    /// Test programs and vectors, for the suite tests, as .ci/gpu-bundle collects them
    #[arg(long, value_name = "DIR")]
    tests: Option<PathBuf>,
    /// A Python with torch, for the suite side-by-side
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// NVIDIA's sanitizer, for the suite sanitizer
    #[arg(long, value_name = "PATH", default_value = "compute-sanitizer")]
    sanitizer: PathBuf,
    /// Look for everything again
    #[arg(long)]
    fresh: bool,
}

fn main() -> ExitCode {
    match validate(&Arguments::parse()) {
        Ok(Outcome::Fail) => ExitCode::from(1),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

fn validate(args: &Arguments) -> Result<Outcome, Error> {
    let effort = if args.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let driver = Arc::new(Driver::new(args.device)?);
    let ctx = Ctx {
        device: driver.clone(),
        gpu: driver,
        effort,
        out: args.out.clone(),
        tests: args.tests.clone(),
        python: args.python.clone(),
        sanitizer: args.sanitizer.clone(),
    };
    let environment = Environment::new(ctx.device.as_ref(), ctx.gpu.as_ref(), effort.name)?;
    let store = Store::new(&args.out)?;
    note(&format!(
        "{}, {}, commit {}",
        environment.device, environment.code, environment.commit
    ));
    for suite in wanted(args) {
        let known = store.load(suite, &environment);
        // What was skipped may be there by now.
        let known = known.filter(|known| !args.fresh && known.outcome != Outcome::Skipped);
        let stored = match known {
            Some(stored) => stored,
            None => run_suite(suite, &ctx, &environment, &store)?,
        };
        print(&stored);
    }
    publish(&store, environment)
}

/// In their order, each once.
fn wanted(args: &Arguments) -> Vec<Suite> {
    if args.only.is_empty() {
        return Suite::ALL.to_vec();
    }
    let mut suites = args.only.clone();
    suites.sort();
    suites.dedup();
    suites
}

fn run_suite(
    suite: Suite,
    ctx: &Ctx,
    environment: &Environment,
    store: &Store,
) -> Result<Stored, Error> {
    note(&format!("{} ...", suite.name()));
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock = Instant::now();
    let found = suite.run(ctx, &SuiteProgress::new());
    let stored = Stored {
        suite,
        environment: environment.clone(),
        started: started.map_or(0, |since| since.as_secs()),
        seconds: clock.elapsed().as_secs_f64(),
        outcome: found.outcome(),
        found,
    };
    store.save(&stored)?;
    Ok(stored)
}

fn print(stored: &Stored) {
    let (name, seconds) = (stored.suite.name(), stored.seconds);
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

/// From all suites that there are, also those of earlier runs.
fn publish(store: &Store, environment: Environment) -> Result<Outcome, Error> {
    let suites = Suite::ALL.into_iter().chain([Suite::SmallCases]);
    let suites: Vec<Stored> = suites
        .filter_map(|suite| store.load(suite, &environment))
        .collect();
    let goals = goals(&suites);
    let results = Results::of(environment, suites, goals);
    for goal in results.goals.iter().filter(|goal| goal.measured.is_some()) {
        let [what, measured, graph, limit, met] = goal_row(goal);
        println!("{met:<4}  {measured:>9} ({graph} as a graph), should be {limit:<9}  {what}");
    }
    let (json, markdown) = ("results.json", format!("{}.md", results.environment.slug()));
    let files = [
        store.write(json, &pretty(json.as_ref(), &results)?)?,
        store.write(&markdown, page(&results).as_bytes())?,
    ];
    for file in files {
        println!("{}", file.display());
    }
    Ok(results.outcome)
}
