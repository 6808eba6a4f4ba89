//! The matrix, and the panel that shows one of its cells.

use std::collections::HashMap;
use std::fmt::Write;

use lora_pro_core::Method;
use serde::Serialize;

use crate::record::Cell;

use super::super::matrix::{Column, Matrix, Row};
use super::super::read::Record;
use super::super::wording;
use super::scale;
use lora_pro_report::escape::{json, markup};
use lora_pro_report::format::duration;

/// Checks by subject and storage type, and in each place a tile for each method.
pub fn grid(record: &Record) -> String {
    let matrix = Matrix::of(record);
    if matrix.rows.is_empty() {
        return "<p>Nothing was checked.</p>\n".into();
    }
    let methods = matrix.methods.len();
    let mut html = format!(
        "<div class=\"scroll\"><table id=\"matrix\" style=\"--n:{methods}\">\n\
         <caption>Worst ratio of each check, by subject, storage type and method. Arrow keys move, \
         Enter opens.</caption>\n{}<tbody>\n",
        head(&matrix)
    );
    let mut number = 0;
    for row in &matrix.rows {
        html.push_str(&row_html(&matrix, row, &mut number));
    }
    html.push_str("</tbody>\n</table></div>\n<p id=\"none\" hidden>No cell is like that.</p>\n");
    html
}

fn head(matrix: &Matrix) -> String {
    let mut html = String::from("<thead>\n<tr><th scope=\"col\" rowspan=\"2\">check</th>");
    for (subject, columns) in matrix.subjects() {
        let subject = markup(subject);
        let _ = write!(
            html,
            "<th scope=\"colgroup\" colspan=\"{columns}\" class=\"first\" data-s=\"{subject}\">\
             <span>{subject}</span></th>"
        );
    }
    html.push_str("</tr>\n<tr>");
    let names: String = matrix.methods.iter().map(method_head).collect();
    for (k, column) in matrix.columns.iter().enumerate() {
        let _ = write!(
            html,
            "<th scope=\"col\"{}>{}<div class=\"bar names\" aria-hidden=\"true\">{names}</div></th>",
            place_attributes(matrix, k),
            column.dtype
        );
    }
    html.push_str("</tr>\n</thead>\n");
    html
}

fn method_head(method: &Method) -> String {
    format!("<i data-m=\"{method}\">{method}</i>")
}

/// Which subject a column is of, and whether it is the first one.
fn place_attributes(matrix: &Matrix, k: usize) -> String {
    let Column { subject, .. } = matrix.columns[k];
    let first = k == 0 || matrix.columns[k - 1].subject != subject;
    let class = if first { " class=\"first\"" } else { "" };
    format!("{class} data-s=\"{}\"", markup(subject))
}

fn row_html(matrix: &Matrix, row: &Row, number: &mut usize) -> String {
    let (check, title) = (markup(row.check), markup(row.title));
    let mut html = format!("<tr><th scope=\"row\"><b>{check}</b> <span>{title}</span></th>");
    for (k, cells) in row.places.iter().enumerate() {
        let tiles = tiles(&matrix.methods, cells, number);
        let _ = write!(
            html,
            "<td{}><div class=\"bar\">{tiles}</div></td>",
            place_attributes(matrix, k)
        );
    }
    html.push_str("</tr>\n");
    html
}

/// A tile or a gap for each method, and a wide tile for what is not about one.
fn tiles(methods: &[Method], cells: &[&Cell], number: &mut usize) -> String {
    let mut html = String::new();
    let mut of_method = |method: Option<Method>| {
        let mut tiles = String::new();
        for cell in cells.iter().filter(|cell| cell.method == method) {
            tiles.push_str(&tile(cell, *number));
            *number += 1;
        }
        tiles
    };
    if cells.iter().any(|cell| cell.method.is_some()) {
        for method in methods {
            match of_method(Some(*method)) {
                tiles if tiles.is_empty() => {
                    let _ = write!(html, "<i data-m=\"{method}\"></i>");
                }
                tiles => html.push_str(&tiles),
            }
        }
    }
    html.push_str(&of_method(None));
    html
}

fn tile(cell: &Cell, number: usize) -> String {
    let class = scale::class(cell.verdict);
    let method = cell
        .method
        .map_or("any".into(), |method| method.to_string());
    let label = format!(
        "{}, {}: {}",
        cell.check,
        wording::place(cell),
        wording::verdict_and_ratio(cell)
    );
    let ratio = match wording::measured(cell) {
        true => format!(" data-r=\"{}\"", wording::ratio(cell.ratio)),
        false => String::new(),
    };
    format!(
        "<button id=\"c{number}\" class=\"{class}\" style=\"--t:{}%\" data-m=\"{method}\" \
         data-v=\"{class}\"{ratio} tabindex=\"-1\" aria-label=\"{}\">{}</button>",
        scale::strength(cell),
        markup(&label),
        wording::symbol(cell.verdict)
    )
}

/// What the panel shows of a cell. What is not there is left out.
#[derive(Serialize)]
struct Detail {
    place: String,
    finding: String,
    facts: Vec<(&'static str, String)>,
    case: Vec<(&'static str, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<String>,
}

impl Detail {
    fn of(cell: &Cell) -> Self {
        Detail {
            place: wording::place(cell),
            finding: wording::verdict_and_ratio(cell),
            facts: facts(cell),
            case: cell.worst.as_ref().map(wording::case).unwrap_or_default(),
            reason: cell.reason.clone(),
            replay: wording::replay(cell),
        }
    }
}

fn facts(cell: &Cell) -> Vec<(&'static str, String)> {
    let required = if cell.required { "yes" } else { "no" };
    let mut facts = vec![
        ("required", required.into()),
        ("cases tried", cell.cases.to_string()),
        ("took", duration(cell.seconds)),
    ];
    if let Some(stability) = cell.measured_stability {
        facts.push(("errors grow like", wording::stability(stability).into()));
    }
    facts
}

/// The empty panel and what fills it: details of the cells, in the order of their tiles.
pub fn panel(record: &Record) -> String {
    let matrix = Matrix::of(record);
    let details: Vec<_> = tiles_in_order(&matrix).map(Detail::of).collect();
    // Strings and numbers in lists always have a form in JSON.
    let details = serde_json::to_string(&details).unwrap_or_default();
    format!(
        "<aside id=\"panel\" aria-label=\"A cell\" aria-live=\"polite\" hidden></aside>\n\
         <script type=\"application/json\" id=\"details\">{}</script>\n",
        json(&details)
    )
}

/// Cells as [`grid`] numbers them.
fn tiles_in_order<'r>(matrix: &'r Matrix<'r>) -> impl Iterator<Item = &'r Cell> {
    let places = matrix.rows.iter().flat_map(|row| &row.places);
    places.flatten().copied()
}

/// The number of each cell's tile, to point at it.
pub fn numbers(record: &Record) -> HashMap<*const Cell, usize> {
    let matrix = Matrix::of(record);
    // Two cells may be equal, their places in the record are not.
    let tiles = tiles_in_order(&matrix).map(std::ptr::from_ref);
    tiles.zip(0..).collect()
}
