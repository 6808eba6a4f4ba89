//! The page around the figures.

use std::fmt::Write;

use lora_pro_finetune::{Comparison, Setup};

use super::figures::{self, Figure};
use super::plot::{Line, escape};
use crate::summary::summary;
use crate::table::{Column, Table};
use crate::tables;

/// Colours, dashes and layout.
const STYLE: &str = include_str!("style.css");

/// The whole report.
pub fn html(comparison: &Comparison) -> String {
    let (results, gaps) = (tables::results(comparison), tables::gaps(comparison));
    let by_rate = tables::by_rate(comparison);
    let sections = [
        format!(
            "<h1>LoRA, LoRA-Pro and full fine-tuning</h1>\n{}",
            lead(comparison)
        ),
        table_html(&results),
        figures_html(&figures::all(comparison)),
        "<h2>Every learning rate</h2>".into(),
        table_html(&by_rate),
        format!(
            "<h2>The gaps at lr {}</h2>",
            tables::rate(tables::reference_lr(comparison))
        ),
        table_html(&gaps),
        columns_html([&results, &gaps]),
        setup_html(&comparison.setup),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>LoRA-Pro: comparison</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{}\n</main>\n</body>\n</html>\n",
        sections.join("\n")
    )
}

fn lead(comparison: &Comparison) -> String {
    let task = escape(&comparison.setup.task);
    let sentences: String = summary(comparison)
        .iter()
        .map(|sentence| format!("<li>{}</li>\n", escape(sentence)))
        .collect();
    format!("<p class=\"lead\">{task}</p>\n<ul>\n{sentences}</ul>")
}

fn table_html(table: &Table) -> String {
    let mut html = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
    for (over, range) in table.groups() {
        let _ = write!(
            html,
            "<th colspan=\"{}\">{}</th>",
            range.len(),
            escape(over)
        );
    }
    html.push_str("</tr>\n<tr>");
    for column in &table.columns {
        let _ = write!(
            html,
            "<th title=\"{}\">{}</th>",
            escape(column.meaning),
            escape(&column.head)
        );
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (style, row) in table.rows.iter().enumerate() {
        let name = format!("{} {}", sample(style), escape(&row[0]));
        let _ = write!(html, "<tr><th scope=\"row\">{name}</th>");
        for cell in &row[1..] {
            let _ = write!(html, "<td>{}</td>", escape(cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    if let Some(footnote) = table.footnote {
        let _ = writeln!(html, "<p class=\"note\">{footnote}</p>");
    }
    html
}

fn figures_html(figures: &[Figure]) -> String {
    let figures: String = figures.iter().map(figure_html).collect();
    format!("<div class=\"figures\">\n{figures}</div>")
}

fn figure_html(figure: &Figure) -> String {
    let legend: String = figure.plot.lines.iter().map(legend_entry).collect();
    format!(
        "<figure>\n<h2>{}</h2>\n{}<ul class=\"legend\">{legend}</ul>\n\
         <figcaption>{}</figcaption>\n</figure>\n",
        escape(&figure.heading),
        figure.plot.svg(),
        escape(&figure.caption)
    )
}

fn legend_entry(line: &Line) -> String {
    format!("<li>{} {}</li>", sample(line.style), escape(&line.name))
}

/// A short piece of a line of this style.
fn sample(style: usize) -> String {
    format!(
        "<svg class=\"sample s{style}\" viewBox=\"0 0 28 10\" aria-hidden=\"true\">\
         <path class=\"line\" d=\"M1 5H27\"/></svg>"
    )
}

fn columns_html(tables: [&Table; 2]) -> String {
    let entry = |column: &Column| {
        let head = format!("{} {}", column.over, column.head);
        format!(
            "<dt>{}</dt><dd>{}</dd>\n",
            escape(head.trim()),
            escape(column.meaning)
        )
    };
    let columns = tables
        .into_iter()
        .flat_map(|table| table.columns.iter().skip(1));
    format!(
        "<h2>The columns</h2>\n<dl>\n{}</dl>",
        columns.map(entry).collect::<String>()
    )
}

fn setup_html(setup: &Setup) -> String {
    let facts = facts(setup);
    let entry =
        |(name, value): &(&str, String)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(value));
    let entries: String = facts.iter().map(entry).collect();
    format!("<h2>The set-up</h2>\n<dl>\n{entries}</dl>")
}

fn facts(setup: &Setup) -> Vec<(&'static str, String)> {
    let [train, validation, test] = setup.split;
    let backend = &setup.backend;
    let seeds: Vec<String> = setup.seeds.iter().map(u64::to_string).collect();
    vec![
        ("task", setup.task.clone()),
        ("network", setup.network.clone()),
        (
            "adapters",
            format!("rank {}, alpha {}", setup.rank, setup.alpha),
        ),
        (
            "training",
            format!("{} steps of {} examples", setup.steps, setup.batch),
        ),
        (
            "seeds",
            format!(
                "{}; each fixes the start of A and the data's order",
                seeds.join(", ")
            ),
        ),
        (
            "rows",
            format!("{train} to train, {validation} to choose learning rates, {test} to test"),
        ),
        (
            "before",
            format!("{:.1} % on the test split", 100.0 * setup.accuracy_before),
        ),
        (
            "backend",
            format!(
                "{} {} on {} ({}), {} threads, SIMD: {}",
                backend.name,
                backend.version,
                backend.device,
                backend.selection,
                backend.threads,
                backend.code_path
            ),
        ),
        ("time", format!("{:.0} s", setup.seconds)),
    ]
}
