//! The report of a comparison: a page, `report.html`, in one file, without network, light and dark,
//! wide and narrow; or its tables in Markdown.

mod figures;
mod markdown;
mod page;

use std::path::Path;

use lora_pro_core::Error;
use lora_pro_finetune::{Comparison, Setup};

/// What kind of file a report is.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    Html,
    Markdown,
}

impl Format {
    /// By the file's name. Rejects other endings.
    pub fn of(path: &Path) -> Result<Self, Error> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("html" | "htm") => Ok(Format::Html),
            Some("md") => Ok(Format::Markdown),
            _ => Err(Error::file(path, "a report ends with .html or .md")),
        }
    }

    /// The report's text.
    pub fn write(self, comparison: &Comparison) -> String {
        match self {
            Format::Html => page::html(comparison),
            Format::Markdown => markdown::markdown(comparison),
        }
    }
}

/// What was compared, on what.
pub fn head(comparison: &Comparison) -> [String; 3] {
    let setup = &comparison.setup;
    let sizes = format!(
        "rank {}, alpha {}, {} steps of {} examples, {} seeds; before fine-tuning {:.1} %",
        setup.rank,
        setup.alpha,
        setup.steps,
        setup.batch,
        setup.seeds.len(),
        100.0 * setup.score_before
    );
    [setup.task.clone(), setup.network.clone(), sizes]
}

/// How much of it was done, and how long that took.
pub fn cost(setup: &Setup) -> String {
    let [all, done] = setup.runs;
    let runs = match done < all {
        true => format!("{done} of {all} runs: the others are missing; "),
        false => String::new(),
    };
    format!("{runs}{:.0} s in all", setup.seconds)
}
