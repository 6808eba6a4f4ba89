//! What is around the matrix.

use std::fmt::Write;

use crate::record::{Cell, SubjectInfo};
use crate::residual::THRESHOLD;
use crate::verdict::Verdict;

use super::super::coverage as met;
use super::super::read::Record;
use super::super::wording;
use super::{grid, scale};
use lora_pro_report::escape::markup;

/// How it went, and what was run.
pub fn head(record: &Record) -> String {
    let state = match record.failures().keys().last() {
        Some(Verdict::Marginal) => scale::class(Verdict::Marginal),
        Some(_) => scale::class(Verdict::Fail),
        None if record.interrupted() => scale::class(Verdict::Unknown),
        None => scale::class(Verdict::Pass),
    };
    let mut facts: Vec<_> = wording::facts(record);
    facts.push(("command", record.run.command.clone()));
    format!(
        "<header>\n<h1>LoRA-Pro conformance</h1>\n\
         <p class=\"headline\"><i class=\"tile {state}\" aria-hidden=\"true\">{}</i>{}</p>\n{}\n\
         </header>\n",
        symbol(&state),
        markup(&wording::headline(record)),
        list(&facts)
    )
}

/// The symbol of a verdict's class.
fn symbol(class: &str) -> &'static str {
    let verdict = Verdict::ALL
        .into_iter()
        .find(|verdict| scale::class(*verdict) == class);
    verdict.map_or("", wording::symbol)
}

fn list(facts: &[(&str, String)]) -> String {
    let entry = |(name, value): &(&str, String)| {
        format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", markup(value))
    };
    let entries: String = facts.iter().map(entry).collect();
    format!("<dl class=\"facts\">\n{entries}</dl>")
}

/// What ratios, colours and verdicts mean.
pub fn legend() -> String {
    let entry = |verdict: Verdict| {
        format!(
            "<dt>{}{}</dt><dd>{}</dd>\n",
            mark(verdict),
            verdict.name(),
            wording::meaning(verdict)
        )
    };
    let entries: String = Verdict::ALL.into_iter().map(entry).collect();
    format!(
        "<section aria-labelledby=\"legend\">\n<h2 id=\"legend\">How to read it</h2>\n\
         <p>{} Of all cases of a cell, the worst one counts.</p>\n{}\
         <dl class=\"verdicts\">\n{entries}</dl>\n</section>\n",
        wording::about_ratios(),
        ramp()
    )
}

fn mark(verdict: Verdict) -> String {
    let (class, symbol) = (scale::class(verdict), wording::symbol(verdict));
    format!("<i class=\"tile {class}\" aria-hidden=\"true\">{symbol}</i>")
}

/// Sample tiles from small ratios to infinity.
fn ramp() -> String {
    let ten = 10.0 * THRESHOLD;
    let ratios = [
        0.003,
        0.01,
        0.03,
        0.1,
        0.3,
        1.0,
        3.0,
        10.0,
        THRESHOLD,
        100.0,
        ten,
        1e3,
        1e4,
        1e5,
        f64::INFINITY,
    ];
    let tile = |&ratio: &f64| {
        let verdict = Verdict::of(ratio);
        let word = if ratio.is_infinite() {
            "∞".into()
        } else {
            wording::ratio(ratio)
        };
        format!(
            "<li><i class=\"tile {}\" style=\"--t:{}%\">{}</i>{word}</li>",
            scale::class(verdict),
            scale::of_ratio(verdict, ratio),
            wording::symbol(verdict)
        )
    };
    let tiles: String = ratios.iter().map(tile).collect();
    format!("<ol class=\"ramp\" aria-label=\"Colours of ratios\">{tiles}</ol>\n")
}

/// Everything that is not fine, in words.
pub fn not_fine(record: &Record) -> String {
    let cells = record.not_fine();
    let numbers = grid::numbers(record);
    let body = match cells.is_empty() {
        true => "<p>Nothing.</p>\n".into(),
        false => {
            let number = |cell: &Cell| numbers.get(&std::ptr::from_ref(cell)).copied();
            let entries = cells.iter().map(|cell| entry(cell, number(cell)));
            let entries: String = entries.collect();
            format!("<ul class=\"list\">\n{entries}</ul>\n")
        }
    };
    format!("<section aria-labelledby=\"bad\">\n<h2 id=\"bad\">Not fine</h2>\n{body}</section>\n")
}

fn entry(cell: &Cell, number: Option<usize>) -> String {
    let optional = if cell.required {
        ""
    } else {
        " <em>not required</em>"
    };
    let check = markup(&cell.check);
    let link = match number {
        Some(number) => format!("<a href=\"#c{number}\">{check}</a>"),
        None => check,
    };
    let mut html = format!(
        "<li>{}<div><p>{link} {} <span>{}</span>{optional}</p>",
        mark(cell.verdict),
        markup(&wording::place(cell)),
        markup(&wording::verdict_and_ratio(cell))
    );
    if let Some(reason) = &cell.reason {
        let _ = write!(html, "<p class=\"reason\">{}</p>", markup(reason));
    }
    if let Some(command) = wording::replay(cell) {
        let _ = write!(html, "<p><code>{}</code></p>", markup(&command));
    }
    html.push_str("</div></li>\n");
    html
}

/// The implementations under test, and what they say of themselves.
pub fn subjects(record: &Record) -> String {
    let rows: String = record
        .subjects
        .iter()
        .map(|subject| row(record, subject))
        .collect();
    format!(
        "<section aria-labelledby=\"subjects\">\n<h2 id=\"subjects\">Subjects</h2>\n\
         <p>The error of a result grows with the condition number κ of A or B: like κ, or like κ² \
         where Gram matrices or coefficients are kept in the storage type.</p>\n\
         <div class=\"scroll\"><table class=\"plain\">\n<thead><tr><th scope=\"col\">subject</th>\
         <th scope=\"col\">version</th><th scope=\"col\">verdicts</th>\
         <th scope=\"col\">worst ratio</th><th scope=\"col\">declared</th>\
         <th scope=\"col\">measured</th><th scope=\"col\">command and manifest</th></tr></thead>\n\
         <tbody>\n{rows}</tbody></table></div>\n</section>\n"
    )
}

fn row(record: &Record, subject: &SubjectInfo) -> String {
    let manifest = serde_json::to_string_pretty(&subject.manifest).unwrap_or_default();
    let command = match &subject.command {
        Some(command) => format!("<code>{}</code>", markup(command)),
        None => "built in".into(),
    };
    format!(
        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{command}<details><summary>manifest</summary><pre>{}</pre></details></td></tr>\n",
        markup(&subject.name),
        markup(&subject.version),
        tally(record, &subject.name),
        worst(record, &subject.name),
        wording::stability(subject.stability),
        measured_stability(record, subject),
        markup(&manifest)
    )
}

fn tally(record: &Record, subject: &str) -> String {
    let count = |verdict: &Verdict| {
        let cells = record.cells_of(subject);
        match cells.filter(|cell| cell.verdict == *verdict).count() {
            0 => String::new(),
            count => format!(
                "<span class=\"count\" title=\"{0}\">{1}<b class=\"sr\">{0}</b> {count}</span>",
                verdict.name(),
                mark(*verdict)
            ),
        }
    };
    Verdict::ALL.iter().map(count).collect()
}

fn worst(record: &Record, subject: &str) -> String {
    let cells = record
        .cells_of(subject)
        .filter(|cell| wording::measured(cell));
    let worst = cells.max_by(|a, b| a.ratio.total_cmp(&b.ratio));
    worst.map_or(String::new(), |cell| {
        format!(
            "{} <small>{}</small>",
            wording::ratio(cell.ratio),
            markup(&cell.check)
        )
    })
}

fn measured_stability(record: &Record, subject: &SubjectInfo) -> String {
    match record.measured_stability(&subject.name) {
        None => "not measured".into(),
        Some(measured) if measured > subject.stability => {
            let measured = wording::stability(measured);
            format!(
                "{}{measured} <small>worse than declared</small>",
                mark(Verdict::Marginal)
            )
        }
        Some(measured) => wording::stability(measured).into(),
    }
}

/// What the cases have met, and how often.
pub fn coverage(record: &Record) -> String {
    let groups = met::groups(record);
    if groups.is_empty() {
        return String::new();
    }
    let groups: String = groups
        .iter()
        .map(|group| group_html(record, group))
        .collect();
    format!(
        "<section aria-labelledby=\"coverage\">\n<h2 id=\"coverage\">Coverage</h2>\n\
         <p>How often the cases met each branch, decade and option. What was never met says \
         nothing.</p>\n<div class=\"groups\">\n{groups}</div>\n</section>\n"
    )
}

fn group_html(record: &Record, group: &met::Group) -> String {
    let most = group.rows.iter().map(met::Row::total).max().unwrap_or(0);
    let rows: String = group.rows.iter().map(|row| met_row(row, most)).collect();
    let subjects = record.subjects.iter();
    let heads: String = subjects
        .map(|subject| format!("<th scope=\"col\">{}</th>", markup(&subject.name)))
        .collect();
    format!(
        "<div class=\"scroll\"><table class=\"plain met\"><thead><tr><th scope=\"col\">{}</th>\
         <th scope=\"col\">all</th>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n",
        markup(group.name)
    )
}

fn met_row(row: &met::Row, most: u64) -> String {
    let counts: String = row.counts.iter().map(|&count| number(count)).collect();
    let share = 100.0 * row.total() as f64 / most.max(1) as f64;
    let class = if row.total() == 0 {
        " class=\"never\""
    } else {
        ""
    };
    let word = if row.total() == 0 {
        " <small>never</small>"
    } else {
        ""
    };
    format!(
        "<tr{class}><th scope=\"row\">{}{word}</th><td class=\"share\" style=\"--w:{share:.1}%\">\
         {}</td>{counts}</tr>\n",
        markup(row.name),
        row.total()
    )
}

fn number(count: u64) -> String {
    match count {
        0 => "<td class=\"zero\">0</td>".into(),
        count => format!("<td>{count}</td>"),
    }
}
