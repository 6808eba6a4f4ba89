//! `lora-pro predict`: what a fine-tuned model says of texts.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use lora_pro_core::write_atomically;
use lora_pro_finetune::{
    FineTuned, FineTunedSource, LanguageDataset, Target, TargetKind, TextColumns, UnlabelledText,
    correlation,
};
use lora_pro_models::Task;
use serde::{Serialize, Serializer};

use crate::failure::Failure;
use crate::output::{check_place, note, say};
use crate::progress::Progress;
use crate::source::Dtype;

/// Tell the classes or scores of texts by a fine-tuned model
///
/// The model is one that `train` or `merge` wrote, an adapter of `train` or of PEFT, or any folder with
/// a fine-tuned model in Hugging Face's layout. What it tells, and the names of the classes, are in its
/// files. Each row of the data gives a line of JSON, in the order of the file; rows count from 1:
///   classes         {"row":1,"label":"good","probabilities":{"bad":0.02,"good":0.98}}
///   scores          {"row":1,"score":0.71}
///   language model  {"row":1,"loss":2.08,"perplexity":8.0,"tokens":31}: how well it foretells the
///                   text; rows that the model's length leaves nothing of are missing
/// Where the data have labels, the last line on standard error tells how well they are met.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    group(ArgGroup::new("source").args(["model", "adapter"]).required(true).multiple(true)),
    after_long_help = "\
Examples:
  lora-pro predict --adapter run1 --data new.tsv
  lora-pro predict --adapter run1 --model downloads/bert-tiny --data new.csv --out found.jsonl
  lora-pro predict --model merged --data new.jsonl"
)]
pub struct PredictArgs {
    /// The model: a folder, a GGUF file or a name on the Hugging Face hub [default: what the adapter
    /// names as its base]
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// The adapter: a folder that `train` or PEFT wrote
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The texts: a CSV, TSV or JSON-lines file with a column `text` (or `sentence1` and `sentence2`);
    /// `label` may be missing. For a language model JSON lines as for `train`
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the lines go [default: standard output]
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
    /// Tokens to which a text is cut [default: as in training]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Texts that go through the model at once
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Type of the frozen weights
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    dtype: Dtype,
}

/// Loads, predicts, writes.
pub fn run(args: &PredictArgs) -> Result<(), Failure> {
    args.out.as_deref().map_or(Ok(()), check_place)?;
    let source = FineTunedSource {
        model: args.model.clone(),
        adapter: args.adapter.clone(),
        precision: args.dtype.precision(),
        max_length: args.max_length,
    };
    let tuned = source.load()?;
    let (lines, summary) = match tuned.task {
        Task::LanguageModel => language(&tuned, args)?,
        _ => labels(&tuned, args)?,
    };
    let lines = lines.join("\n");
    match &args.out {
        Some(path) => write_atomically(path, (lines + "\n").as_bytes())?,
        None => say(&lines)?,
    }
    summary.iter().for_each(|summary| note(summary));
    Ok(())
}

/// A line of the answer.
#[derive(Serialize)]
struct Line<'a, T> {
    row: usize,
    #[serde(flatten)]
    said: &'a T,
}

/// What a classifier says.
#[derive(Serialize)]
struct Class<'c> {
    label: &'c str,
    probabilities: Probabilities<'c>,
}

/// Classes and how probable each is, in the classes' order.
struct Probabilities<'c>(&'c [String], Vec<f32>);

impl Serialize for Probabilities<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(&self.1))
    }
}

#[derive(Serialize)]
struct ScoreOf {
    score: f32,
}

#[derive(Serialize)]
struct Foretold {
    loss: f64,
    perplexity: f64,
    tokens: usize,
}

fn line(row: usize, said: &impl Serialize) -> Result<String, Failure> {
    let row = row + 1;
    let line = serde_json::to_string(&Line { row, said });
    line.map_err(|error| Failure::Run(format!("row {row}: {error}")))
}

/// The lines, and how well the labels are met where there are some.
type Answer = (Vec<String>, Option<String>);

fn labels(tuned: &FineTuned, args: &PredictArgs) -> Result<Answer, Failure> {
    let classes = tuned.classes();
    let kind = match tuned.task {
        Task::Classify(_) => TargetKind::Class,
        _ => TargetKind::Score,
    };
    let texts = UnlabelledText::read(&args.data, kind, &classes, &TextColumns::default())?;
    let progress = Progress::new();
    let told = |done| progress.set(done, texts.len(), "texts");
    let outputs = tuned.outputs(&texts, args.batch as usize, &told)?;
    progress.finish();
    if let Some(row) = outputs
        .iter()
        .position(|row| !row.iter().all(|x| x.is_finite()))
    {
        let row = row + 1;
        return Err(Failure::Run(format!(
            "row {row}: what the model says is not finite"
        )));
    }
    let said = |(row, output): (usize, &Vec<f32>)| match kind {
        TargetKind::Class => line(row, &class(&classes, output)),
        TargetKind::Score => line(
            row,
            &ScoreOf {
                score: score(output),
            },
        ),
    };
    let lines = outputs.iter().enumerate().map(said);
    Ok((lines.collect::<Result<_, _>>()?, met(&texts, &outputs)))
}

fn class<'c>(classes: &'c [String], logits: &[f32]) -> Class<'c> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let parts = logits.iter().map(|logit| f64::from(logit - largest).exp());
    let sum: f64 = parts.clone().sum();
    Class {
        label: classes.get(best(logits)).map_or("", String::as_str),
        probabilities: Probabilities(classes, parts.map(|part| (part / sum) as f32).collect()),
    }
}

/// The first of the largest.
fn best(logits: &[f32]) -> usize {
    let better = |best: usize, (class, logit): (usize, &f32)| match *logit > logits[best] {
        true => class,
        false => best,
    };
    logits.iter().enumerate().fold(0, better)
}

fn score(output: &[f32]) -> f32 {
    output.first().copied().unwrap_or_default()
}

/// How well the labels are met; `None` without labels.
fn met(texts: &[UnlabelledText], outputs: &[Vec<f32>]) -> Option<String> {
    let targets: Option<Vec<Target>> = texts.iter().map(|text| text.target).collect();
    let (mut right, mut pairs) = (0, Vec::new());
    for (target, output) in targets?.iter().zip(outputs) {
        match target {
            Target::Class(class) => right += usize::from(*class as usize == best(output)),
            Target::Score(value) => pairs.push([f64::from(score(output)), f64::from(*value)]),
        }
    }
    let count = texts.len();
    Some(match pairs.is_empty() {
        true => {
            let percent = 100.0 * right as f64 / count.max(1) as f64;
            format!("accuracy {percent:.1} %: {right} of {count}")
        }
        false => format!("correlation {:.3} over {count} rows", correlation(&pairs)),
    })
}

fn language(tuned: &FineTuned, args: &PredictArgs) -> Result<Answer, Failure> {
    let data = LanguageDataset::read(&args.data)?;
    let progress = Progress::new();
    let told = |done| progress.set(done, data.examples.len(), "texts");
    let losses = tuned.language(&data, &told)?;
    progress.finish();
    let lines = losses.iter().map(|one| {
        let (loss, tokens) = (one.loss, one.tokens);
        let perplexity = loss.exp();
        line(
            one.row,
            &Foretold {
                loss,
                perplexity,
                tokens,
            },
        )
    });
    let tokens: usize = losses.iter().map(|one| one.tokens).sum();
    let sum: f64 = losses.iter().map(|one| one.loss * one.tokens as f64).sum();
    let mean = sum / tokens.max(1) as f64;
    let (perplexity, rows) = (mean.exp(), losses.len());
    let summary =
        format!("loss {mean:.4}, perplexity {perplexity:.2}: {tokens} tokens of {rows} rows");
    Ok((lines.collect::<Result<_, Failure>>()?, Some(summary)))
}
