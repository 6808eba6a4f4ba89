//! `lora-pro merge`: a model with its adapter merged, as a folder.

use std::path::PathBuf;

use clap::Args;
use lora_pro_finetune::FineTunedSource;
use lora_pro_models::check_new;

use crate::failure::Failure;
use crate::output::say;
use crate::source::Dtype;

/// Merge an adapter into its model: W0 + s B A, and what was trained as a whole
///
/// Writes a folder in Hugging Face's layout: config.json, model.safetensors and the tokenizer's files.
/// transformers loads it by `AutoModelForSequenceClassification.from_pretrained(DIR)` (or
/// `AutoModelForCausalLM`), `predict` and `train` by `--model DIR`. A GGUF model is written dequantised.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  lora-pro merge --adapter run1 --out merged
  lora-pro merge --adapter run1 --model downloads/bert-tiny --out merged --dtype stored"
)]
pub struct MergeArgs {
    /// The adapter: a folder that `train` or PEFT wrote
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The model: a folder, a GGUF file or a name on the Hugging Face hub [default: what the adapter
    /// names as its base]
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// Folder for the merged model: new, or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Type of the weights that are written: `stored` is half as large where the model's files have 16
    /// bits, and rounds what the adapter changes
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    dtype: Dtype,
}

/// Loads, merges, writes.
pub fn run(args: &MergeArgs) -> Result<(), Failure> {
    check_new(&args.out)?;
    let source = FineTunedSource {
        model: args.model.clone(),
        adapter: Some(args.adapter.clone()),
        precision: args.dtype.precision(),
        max_length: None,
    };
    let tuned = source.load()?;
    let adapters = tuned.network.parameters.adapters().count();
    tuned.save(&args.out)?;
    say(&format!(
        "merged {adapters} adapters, in {}",
        args.out.display()
    ))
}
