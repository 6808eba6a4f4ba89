//! The page around the figures.

use std::collections::HashSet;

use lora_pro_finetune::{Comparison, Setup};
use lora_pro_report::escape::markup as escape;
use lora_pro_report::page::{definitions, page};
use lora_pro_report::plot::Line;

use super::figures::{self, Figure};
use crate::summary::summary;
use crate::tables::{self, Table};

/// Colours, dashes and layout.
const STYLE: &str = include_str!("style.css");

/// The whole report.
pub fn html(comparison: &Comparison) -> String {
    let figures = figures_html(&figures::all(comparison));
    let tables = tables::all(comparison);
    let tables_html = tables.iter().map(|(title, table)| match title {
        Some(title) => format!("<h2>{}</h2>\n{}", escape(title), table.html(sample)),
        None => format!("{}\n{figures}", table.html(sample)),
    });
    let title = "<h1>LoRA, LoRA-Pro and full fine-tuning</h1>";
    let mut sections = vec![format!("{title}\n{}", lead(comparison))];
    sections.extend(tables_html);
    sections.push(columns_html(&tables));
    sections.push(setup_html(&comparison.setup));
    let body = format!("<main>\n{}\n</main>\n", sections.join("\n"));
    page("LoRA-Pro: comparison", STYLE, "", &body)
}

fn lead(comparison: &Comparison) -> String {
    let task = escape(&comparison.setup.task);
    let sentences: String = summary(comparison)
        .iter()
        .map(|sentence| format!("<li>{}</li>\n", escape(sentence)))
        .collect();
    format!("<p class=\"lead\">{task}</p>\n<ul>\n{sentences}</ul>")
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

/// Each meaning once: columns that differ in their learning rate alone share theirs.
fn columns_html(tables: &[(Option<String>, Table)]) -> String {
    let columns = tables
        .iter()
        .flat_map(|(_, table)| table.columns.iter().skip(1));
    let mut told = HashSet::new();
    let columns = columns.filter(|column| told.insert(column.meaning));
    let entries = columns.map(|column| {
        let head = format!("{} {}", column.over, column.head);
        (head.trim().to_string(), column.meaning.to_string())
    });
    format!("<h2>The columns</h2>\n{}", definitions(entries))
}

fn setup_html(setup: &Setup) -> String {
    format!("<h2>The set-up</h2>\n{}", definitions(facts(setup)))
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
            format!("{:.1} % on the test split", 100.0 * setup.score_before),
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
        (
            "runs",
            format!("{} of {} done", setup.runs[1], setup.runs[0]),
        ),
        ("time", format!("{:.0} s", setup.seconds)),
    ]
}
