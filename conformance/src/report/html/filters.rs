//! What to show: nothing chosen shows everything.

use crate::verdict::Verdict;

use super::super::matrix::Matrix;
use super::super::read::Record;
use super::super::wording;
use super::scale;
use lora_pro_report::escape::markup;

/// Verdicts, subjects and methods to choose from.
pub fn filters(record: &Record) -> String {
    let matrix = Matrix::of(record);
    if matrix.rows.is_empty() {
        return String::new();
    }
    let subjects = matrix.subjects();
    let subjects = subjects.iter().map(|(name, _)| plain("subject", name));
    let methods = matrix.methods.iter().map(ToString::to_string);
    let mut methods: String = methods.map(|name| plain("method", &name)).collect();
    if record.cells.iter().any(|cell| cell.method.is_none()) {
        methods.push_str(&option("method", "any", "not about one"));
    }
    format!(
        "<form id=\"filters\" aria-label=\"Filters\">\n{}{}{}\
         <p><button type=\"reset\">show all</button> <span id=\"shown\" role=\"status\"></span></p>\n\
         </form>\n",
        set("verdict", &verdicts(record)),
        set("subject", &subjects.collect::<String>()),
        set("method", &methods),
    )
}

fn set(name: &str, options: &str) -> String {
    format!("<fieldset><legend>{name}</legend>{options}</fieldset>\n")
}

fn plain(name: &str, value: &str) -> String {
    option(name, value, &markup(value))
}

fn verdicts(record: &Record) -> String {
    let counts = record.counts();
    let option = |verdict: &Verdict| {
        let count = counts.get(verdict).copied().unwrap_or(0);
        let class = scale::class(*verdict);
        let label = format!(
            "<i class=\"tile {class}\" aria-hidden=\"true\">{}</i>{} <b>{count}</b>",
            wording::symbol(*verdict),
            verdict.name()
        );
        option("verdict", &class, &label)
    };
    let met = Verdict::ALL
        .iter()
        .filter(|verdict| counts.contains_key(verdict));
    met.map(option).collect()
}

fn option(name: &str, value: &str, label: &str) -> String {
    format!(
        "<label><input type=\"checkbox\" name=\"{name}\" value=\"{}\"><span>{label}</span></label>",
        markup(value)
    )
}
