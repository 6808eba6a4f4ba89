//! `lora-pro compare`: all methods on the same task, as a table and a report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Command};
use lora_pro_core::{Error, write_atomically};
use lora_pro_finetune::{Compare, Comparison, Experiment, RunLog};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::backends::Choice;
use crate::failure::Failure;
use crate::output::{check_place, note, say};
use crate::progress::Progress;
use crate::run_args::finite;
use crate::settings_file::{given, not_finite, read};
use crate::source::SourceArgs;
use crate::summary::summary;
use crate::{report, tables};

/// Compare full fine-tuning, LoRA, rsLoRA, LoRA+ and LoRA-Pro
///
/// Every method trains the same weights of the same pre-trained network, over several seeds and
/// learning rates. Accuracies on the test split are given twice: at full fine-tuning's best
/// learning rate, where the question is which method follows it, and at the method's own best,
/// chosen on the validation split. With --runs, a comparison that was interrupted goes on where it
/// stood.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  lora-pro compare
  lora-pro compare --rank 1 --seeds 3 --out rank1.html --json rank1.json
  lora-pro compare --data rows.csv --quick
  lora-pro compare --model downloads/bert-tiny --methods full-fine-tuning,lora,lora-pro-factored \\
    --lrs 1e-4,3e-4,1e-3 --seeds 3 --runs runs.jsonl
  lora-pro compare --config experiments/learning-rate.toml --runs runs.jsonl --max-minutes 30

A configuration file sets the same and more; a variant is a method with something changed:
  model = \"downloads/bert-tiny\"
  methods = [\"full-fine-tuning\", \"lora-pro-efficient\", \"efficient with beta2 0.95\"]
  lrs = [1e-4, 1e-3]
  seeds = [0, 1, 2]
  max_grad_norm = 1.0
  schedule = { cosine = { warmup = 15, total = 253 } }
  [optimizer]
  weight_decay = 0.01
  [variants.\"efficient with beta2 0.95\"]
  method = \"lora-pro-efficient\"
  optimizer = { beta2 = 0.95 }"
)]
pub struct CompareArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Take settings from a TOML file; options on the command line win
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Which backend steps; `lora-pro info` lists them
    #[arg(long, default_value = "auto", value_name = "NAME")]
    backend: String,
    /// Which methods: full-fine-tuning (first: the others are measured against it),
    /// full-fine-tuning-all, lora, rslora, lora-plus, lora-pro-efficient, lora-pro-factored,
    /// lora-pro-full, or a variant of the configuration file
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    methods: Option<Vec<String>>,
    /// Learning rates that each method is tried at
    #[arg(long, value_name = "LR,...", value_delimiter = ',', value_parser = finite)]
    lrs: Option<Vec<f64>>,
    /// Rank r of every adapter
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// Alpha: the scale s is alpha / r, or alpha / sqrt(r) for rsLoRA
    #[arg(long, value_name = "ALPHA", allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// Number of seeds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
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
    /// Keep finished runs in this file, and take those from it that are there: a comparison that
    /// was interrupted goes on
    #[arg(long, value_name = "FILE.jsonl")]
    runs: Option<PathBuf>,
    /// Begin no run that would end later than this; the report says which are missing
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..))]
    max_minutes: Option<u32>,
    /// Where the report goes: FILE.html, or FILE.md with the tables alone
    #[arg(long, default_value = "report.html", value_name = "FILE.html|FILE.md")]
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
    let format = report::Format::of(&args.out)?;
    for place in [Some(&args.out), args.json.as_ref(), args.runs.as_ref()] {
        place.map_or(Ok(()), |place| check_place(place))?;
    }
    let mut log = match &args.runs {
        Some(path) => RunLog::open(path)?,
        None => RunLog::default(),
    };
    let progress = Progress::new();
    progress.set(0, 1, "loading");
    let (source, changes) = args.settings()?;
    let source = source.load(&choice)?;
    let experiment = source.experiment.for_comparison(&source.task.base)?;
    let experiment = experiment
        .with(changes)
        .map_err(|error| args.refuse(error))?;
    let compare = Compare {
        experiment: &experiment,
        task: &source.task,
        make_backend: &|| choice.make(),
        progress: &|done, all, what| progress.set(done, all, what),
        time_limit: args
            .max_minutes
            .map(|m| Duration::from_secs(60 * u64::from(m))),
    };
    let mut found = compare.run(&mut log)?;
    progress.finish();
    found.setup.backend = choice.manifest()?;
    say(&text(&found))?;
    write_atomically(&args.out, format.write(&found).as_bytes())?;
    note(&format!("report: {}", args.out.display()));
    args.json
        .as_deref()
        .map_or(Ok(()), |path| write_json(path, &found))
}

impl CompareArgs {
    /// Network and data, and what is asked for that is not the experiment's default: the file's,
    /// then the command line's.
    fn settings(&self) -> Result<(SourceArgs, Map<String, Value>), Failure> {
        let mut fields = match &self.config {
            Some(path) => read(path)?,
            None => Map::new(),
        };
        if let Some(key) = not_finite(&fields) {
            return Err(self.refuse(format!("`{key}` is not a finite number")));
        }
        fields.extend(given(&self.source)?);
        fields.extend(self.changes()?);
        let of_source = SourceArgs::augment_args(Command::new(""));
        let of_source = of_source.get_arguments().map(|one| one.get_id().as_str());
        let of_source: Vec<&str> = of_source.collect();
        let experiment = serde_json::to_value(Experiment::default());
        let experiment = experiment.map_err(|error| self.refuse(error))?;
        let of_experiment = experiment.as_object().into_iter().flat_map(Map::keys);
        let known: Vec<&str> = of_source
            .iter()
            .copied()
            .chain(of_experiment.map(String::as_str))
            .collect();
        if let Some(key) = fields.keys().find(|key| !known.contains(&key.as_str())) {
            let known = known.join("`, `");
            return Err(self.refuse(format!("unknown field `{key}`, expected one of `{known}`")));
        }
        let source = of_source.iter().filter_map(|key| fields.remove_entry(*key));
        let source = SourceArgs::deserialize(Value::Object(source.collect()));
        Ok((source.map_err(|error| self.refuse(error))?, fields))
    }

    /// What the options change in the experiment.
    fn changes(&self) -> Result<Map<String, Value>, Failure> {
        let quick = self.quick.then_some(QUICK_STEPS as u32);
        let seeds = self.seeds.or(self.quick.then_some(1));
        given(&serde_json::json!({
            "methods": self.methods,
            "lrs": self.lrs,
            "rank": self.rank,
            "alpha": self.alpha,
            "seeds": seeds.map(|count| (0..count).collect::<Vec<_>>()),
            "steps": self.steps.or(quick),
            "batch": self.batch,
        }))
    }

    /// A refusal of what the settings are when taken together.
    fn refuse(&self, reason: impl ToString) -> Failure {
        let place = self.config.as_deref();
        let place = place.unwrap_or(Path::new("the command line"));
        Error::file(place, reason.to_string()).into()
    }
}

fn text(found: &Comparison) -> String {
    let tables = tables::all(found).map(|(_, table)| table.text());
    let head = report::head(found).join("\n");
    let end = report::cost(&found.setup);
    [head, tables.join("\n\n"), summary(found).join("\n"), end].join("\n\n")
}

fn write_json(path: &Path, found: &Comparison) -> Result<(), Failure> {
    let bytes = serde_json::to_vec_pretty(found).map_err(|error| Error::file(path, error))?;
    Ok(write_atomically(path, &bytes)?)
}
