//! The same tables in Markdown, to be included in a page.

use lora_pro_finetune::Comparison;

use super::{cost, head};
use crate::summary::summary;
use crate::tables;

/// Head, tables and summary, without figures.
pub fn markdown(comparison: &Comparison) -> String {
    let tables = tables::all(comparison);
    let sections = tables.map(|(title, table)| match title {
        Some(title) => format!("### {title}\n\n{}", table.markdown()),
        None => table.markdown(),
    });
    let summary: Vec<String> = summary(comparison)
        .iter()
        .map(|sentence| format!("- {sentence}"))
        .collect();
    let mut parts = vec![head(comparison).join("\n"), summary.join("\n")];
    parts.extend(sections);
    parts.push(cost(&comparison.setup));
    parts.join("\n\n") + "\n"
}
