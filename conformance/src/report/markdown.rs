//! The matrix as text.

use super::Record;
use super::table::{Table, short, worst};
use crate::record::Cell;
use crate::verdict::Verdict;

/// A matrix of the worst verdicts, and everything that is a reason to worry.
pub fn markdown(record: &Record) -> String {
    let table = Table::of(record);
    let mut text = head(record);
    let heads = table.columns.iter();
    let heads: Vec<String> = heads
        .map(|c| format!("{} {}", c.subject, c.dtype))
        .collect();
    text += &format!("| check | {} |\n", heads.join(" | "));
    text += &format!("|---{}|\n", "|---".repeat(heads.len()));
    for (check, _) in &table.rows {
        let columns = table.columns.iter();
        let cells: Vec<String> = columns
            .map(|column| worst(&table.at(check, column)).map_or_else(String::new, mark))
            .collect();
        text += &format!("| {check} | {} |\n", cells.join(" | "));
    }
    text +=
        "\nA number is the largest ratio of error and explained error: below 30 a check passes.\n";
    let bad = record.not_fine();
    if !bad.is_empty() {
        text += "\n## Not fine\n\n";
        bad.iter().for_each(|cell| text += &finding(cell));
    }
    text
}

fn head(record: &Record) -> String {
    let run = &record.run;
    let counts = Verdict::ALL.map(|verdict| (record.count(verdict), verdict.name()));
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    format!(
        "# LoRA-Pro conformance: {}\n\n{}\n\n\
         Kit {}, {}, vectors {}, protocol {}; seed {}, {} cases a cell; {} ({} threads), {} {}.\n\n\
         `{}`\n\n",
        record.verdict(),
        counts.join(", "),
        run.kit,
        run.spec,
        run.vectors,
        run.protocol,
        run.seed,
        run.cases,
        run.machine.cpu,
        run.machine.threads,
        run.machine.os,
        run.machine.arch,
        run.command,
    )
}

fn mark(cell: &Cell) -> String {
    match cell.verdict {
        Verdict::Pass => short(cell.ratio),
        Verdict::Marginal | Verdict::Fail => {
            format!("**{}** {}", cell.verdict.name(), short(cell.ratio))
        }
        verdict => verdict.name().to_lowercase(),
    }
}

fn finding(cell: &Cell) -> String {
    let method = cell
        .method
        .map_or_else(String::new, |method| format!(" {method}"));
    let mut text = format!(
        "- **{}** {} {} {}{method}: {}; ratio {}\n",
        cell.verdict.name(),
        cell.subject,
        cell.check,
        cell.dtype,
        cell.title,
        short(cell.ratio)
    );
    if let Some(reason) = &cell.reason {
        text += &format!("  - {reason}\n");
    }
    if let Some(case) = &cell.worst {
        let case = serde_json::to_string(case).unwrap_or_default();
        text += &format!("  - `{case}`\n");
    }
    if let Some(replay) = &cell.replay {
        text += &format!("  - `lora-pro conform replay {replay}`\n");
    }
    text
}
