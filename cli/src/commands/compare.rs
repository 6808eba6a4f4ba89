//! `lora-pro compare`: all methods on the same task, as a table and a report.

use std::path::{Path, PathBuf};

use clap::Args;
use lora_pro_core::{Error, write_atomically};
use lora_pro_finetune::{Compare, Comparison, Experiment, RunLog};

use crate::backends::Choice;
use crate::failure::Failure;
use crate::output::{check_place, note, say};
use crate::progress::Progress;
use crate::source::SourceArgs;
use crate::summary::summary;
use crate::{report, tables};

/// Compare full fine-tuning, LoRA, rsLoRA, LoRA+ and LoRA-Pro
///
/// Every method trains the same weights of the same pre-trained network, over several seeds and
/// learning rates. Accuracies on the test split are given twice: at full fine-tuning's best
/// learning rate, where the question is which method follows it, and at the method's own best,
/// chosen on the validation split. Numbers are printed as they come out.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  lora-pro compare
  lora-pro compare --rank 1 --seeds 3 --out rank1.html --json rank1.json
  lora-pro compare --data rows.csv --quick"
)]
pub struct CompareArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Which backend steps; `lora-pro info` lists them
    #[arg(long, default_value = "auto", value_name = "NAME")]
    backend: String,
    /// Rank r of every adapter
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// Alpha: the scale s is alpha / r, or alpha / sqrt(r) for rsLoRA
    #[arg(long, value_name = "ALPHA", allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// Number of seeds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Steps of each run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    /// Examples per step
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// One seed and sixty steps: to see that it works, not to conclude from
    #[arg(long)]
    quick: bool,
    /// Where the report goes
    #[arg(long, default_value = "report.html", value_name = "FILE.html")]
    out: PathBuf,
    /// Write all numbers as JSON, too
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
}

/// Steps of a `--quick` run.
const QUICK_STEPS: usize = 60;

/// Runs everything, prints the table, writes the files.
pub fn run(args: &CompareArgs) -> Result<(), Failure> {
    let choice = Choice::of(&args.backend)?;
    check_place(&args.out)?;
    args.json.as_deref().map_or(Ok(()), check_place)?;
    let progress = Progress::new();
    progress.set(0, 1, "loading");
    let source = args.source.load(&choice)?;
    let experiment = args.adjusted(source.experiment);
    let compare = Compare {
        experiment: &experiment,
        task: &source.task,
        make_backend: &|| choice.make(),
        progress: &|done, all, what| progress.set(done, all, what),
        time_limit: None,
    };
    let mut found = compare.run(&mut RunLog::default())?;
    progress.finish();
    found.setup.backend = choice.manifest()?;
    say(&text(&found))?;
    write_atomically(&args.out, report::html(&found).as_bytes())?;
    note(&format!("report: {}", args.out.display()));
    args.json
        .as_deref()
        .map_or(Ok(()), |path| write_json(path, &found))
}

impl CompareArgs {
    fn adjusted(&self, mut experiment: Experiment) -> Experiment {
        if self.quick {
            experiment.steps = QUICK_STEPS;
            experiment.seeds.truncate(1);
        }
        let number = |value: Option<u32>, default| value.map_or(default, |value| value as usize);
        experiment.steps = number(self.steps, experiment.steps);
        experiment.batch = number(self.batch, experiment.batch);
        experiment.rank = self.rank.unwrap_or(experiment.rank);
        experiment.alpha = self.alpha.unwrap_or(experiment.alpha);
        if let Some(count) = self.seeds {
            experiment.seeds = (0..count).collect();
        }
        experiment
    }
}

fn text(found: &Comparison) -> String {
    let setup = &found.setup;
    let head = format!(
        "{}\n{}\nrank {}, alpha {}, {} steps of {} examples, {} seeds; before fine-tuning {:.1} %",
        setup.task,
        setup.network,
        setup.rank,
        setup.alpha,
        setup.steps,
        setup.batch,
        setup.seeds.len(),
        100.0 * setup.score_before
    );
    let tables = [
        tables::results(found),
        tables::by_rate(found),
        tables::robustness(found),
        tables::gaps(found),
    ];
    let tables = tables.map(|table| table.text()).join("\n\n");
    let [all, done] = setup.runs;
    let runs = match done < all {
        true => format!("{done} of {all} runs: the others are missing; "),
        false => String::new(),
    };
    let time = format!("{runs}{:.0} s in all", setup.seconds);
    [head, tables, summary(found).join("\n"), time].join("\n\n")
}

fn write_json(path: &Path, found: &Comparison) -> Result<(), Failure> {
    let bytes = serde_json::to_vec_pretty(found).map_err(|error| Error::file(path, error))?;
    Ok(write_atomically(path, &bytes)?)
}
