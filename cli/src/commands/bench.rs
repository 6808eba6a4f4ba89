//! `lora-pro bench`: how fast a backend steps, against floors of the same machine.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use lora_pro_bench::Bench;
use lora_pro_bench::report::Report;
use lora_pro_bench::rows::{self, Row};
use lora_pro_bench::size::Size;
use lora_pro_core::{Error, write_atomically};

use crate::backends::Choice;
use crate::bench_text;
use crate::failure::Failure;
use crate::output::{check_place, note, say};
use crate::progress::Progress;

/// Measure how fast a backend steps, against what this machine could do at best
///
/// Each row is compared with a floor that is measured in the same run, in turn with the row itself
/// and with as many threads: an in-place pass over the bytes that the step must move, the
/// operations that it needs at the rate of a matrix product, or another step. The ratio is judged
/// by the quartiles of its rounds: `met` and `missed` where three quarters of them agree, and
/// `cannot tell` otherwise. A row's answer is compared with the reference first; where it is
/// wrong, the row is not measured, and the exit code is 1. A goal that is missed is no failure.
///
/// A machine that does other work at the same time measures that work. The large rows need 6 GB of
/// memory.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  lora-pro bench                               everything: four minutes
  lora-pro bench --list                        the rows and their goals
  lora-pro bench --rows full-r8-f32,full-r64 --seconds 30 --json found.json
  lora-pro bench --quick                       seconds: shows that it runs, not how fast

Columns:
  measured   median time of a step (or bytes of memory)
  floor      what it is compared with, and the median of that
  ratio      the first over the second, round by round: median, quartiles, and the goal
  rate       bytes that the step must move and operations that it needs, over the time"
)]
pub struct BenchArgs {
    /// Only these rows
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    rows: Vec<String>,
    /// Print the rows and their goals, and measure nothing
    #[arg(long)]
    list: bool,
    /// Which backend steps; `lora-pro info` lists them
    #[arg(long, default_value = "auto", value_name = "NAME")]
    backend: String,
    /// Threads of rows that do not say otherwise; the goals are about two
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Seconds for each row [default: 10, with --quick 0.02]
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<f64>,
    /// Tiny shapes, a few seconds in all: nothing to conclude from
    #[arg(long)]
    quick: bool,
    /// Write all numbers as JSON, too
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
    /// Do the work of this row and print the memory that it took: what a row about memory starts
    #[arg(long, value_name = "ROW", hide = true)]
    memory_of: Option<String>,
}

/// At most an hour for each row.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("it is not a number from 0 to 3600".into()),
    }
}

/// Measures, prints the table, writes the file.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let rows = match args.rows.as_slice() {
        [] => rows::rows()?,
        names => rows::named(names)?,
    };
    if args.list {
        return say(&bench_text::list(&rows));
    }
    args.json.as_deref().map_or(Ok(()), check_place)?;
    let choice = Choice::of(&args.backend)?;
    if choice.name() == lora_pro_cuda::NAME {
        note(
            "note: rows hold host tensors, which the cuda backend copies over and back in every step; \
             lora-pro-gpu-validation measures a GPU",
        );
    }
    let size = if args.quick { Size::Quick } else { Size::Full };
    let progress = Progress::new();
    let process = |row: &Row| process(row, args, &choice);
    let bench = Bench {
        rows,
        size,
        threads: args.threads as usize,
        seconds: args.seconds.unwrap_or(size.seconds()),
        engine: &|threads| choice.make_with(Some(threads)),
        process: Some(&process),
        told: &|done, all, what| progress.set(done, all, what),
    };
    if let Some(id) = &args.memory_of {
        return footprint(&bench, id);
    }
    let mut report = bench.run()?;
    progress.finish();
    report.backend.selection = choice.manifest()?.selection;
    say(&bench_text::text(&report))?;
    if let Some(path) = &args.json {
        let bytes = serde_json::to_vec_pretty(&report).map_err(|error| Error::file(path, error))?;
        write_atomically(path, &bytes)?;
    }
    wrong(&report)
}

/// This program once more, for one row's memory.
fn process(row: &Row, args: &BenchArgs, choice: &Choice) -> Command {
    // Where the system does not know this program's path, starting the name fails and says so.
    let program = std::env::current_exe().unwrap_or_else(|_| "lora-pro".into());
    let mut command = Command::new(program);
    command.args(["bench", "--memory-of", &row.id, "--backend", choice.name()]);
    command.args(["--threads", &args.threads.to_string()]);
    if args.quick {
        command.arg("--quick");
    }
    command
}

/// The process's part: one line of JSON.
fn footprint(bench: &Bench<'_>, id: &str) -> Result<(), Failure> {
    let rows = rows::named(&[id.to_string()])?;
    let [row] = rows.as_slice() else {
        return Err(Failure::Input(format!("`{id}` is not one row")));
    };
    let found = bench.footprint(row)?;
    let text = serde_json::to_string(&found).map_err(|error| Failure::Run(error.to_string()))?;
    say(&text)
}

fn wrong(report: &Report) -> Result<(), Failure> {
    match report.wrong().as_slice() {
        [] => Ok(()),
        ids => Err(Failure::Run(format!("wrong answers: {}", ids.join(" ")))),
    }
}
