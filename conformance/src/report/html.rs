//! The matrix as one page that needs nothing else: styles, data and a few lines of script are in it.

use super::coverage::coverage;
use super::table::{Column, Table, short};
use super::{Record, escaped};
use crate::record::{Cell, Stability};
use crate::residual::THRESHOLD;
use crate::verdict::Verdict;

/// The page.
pub fn html(record: &Record) -> String {
    let table = Table::of(record);
    let title = format!("LoRA-Pro conformance: {}", record.verdict());
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n{}{}{}{}{}\
         <script type=\"application/json\" id=\"cells\">{}</script>\n<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("page.css"),
        head(record),
        filters(record, &table),
        matrix(record, &table),
        subjects(record),
        exercised(record),
        data(record),
        include_str!("page.js"),
    )
}

/// JSON in a script ends where the script's end tag stands: there must be none.
fn data(record: &Record) -> String {
    // Coverage has a table of its own.
    let bare = |cell: &Cell| Cell {
        coverage: Default::default(),
        ..cell.clone()
    };
    let cells: Vec<Cell> = record.cells.iter().map(bare).collect();
    let text = serde_json::to_string(&cells).unwrap_or_else(|_| "[]".into());
    text.replace('<', "\\u003c")
}

fn head(record: &Record) -> String {
    let run = &record.run;
    let class = match &record.end {
        None => "open",
        Some(_) if record.not_fine().is_empty() => "",
        Some(_) => "bad",
    };
    let counts = Verdict::ALL.map(|verdict| (record.count(verdict), verdict.name()));
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let seconds = record
        .end
        .as_ref()
        .map(|end| format!(", {:.1} s", end.seconds));
    format!(
        "<h1>LoRA-Pro conformance <span class=\"tag {class}\">{}</span></h1>\n\
         <p>{}<br><span class=\"dim\">kit {}, {}, vectors {}, protocol {}; seed {}, {} cases a cell; \
         {} ({} threads), {} {}; {}{}</span><br><code>{}</code></p>\n",
        record.verdict(),
        counts.join(", "),
        escaped(&run.kit),
        escaped(&run.spec),
        escaped(&run.vectors),
        run.protocol,
        run.seed,
        run.cases,
        escaped(&run.machine.cpu),
        run.machine.threads,
        escaped(&run.machine.os),
        escaped(&run.machine.arch),
        date(run.started),
        seconds.unwrap_or_default(),
        escaped(&run.command),
    )
}

/// Seconds since 1970 as a date (the algorithm is Hinnant's `civil_from_days`).
fn date(seconds: u64) -> String {
    let days = (seconds / 86_400) as i64 + 719_468;
    let era = days / 146_097;
    let of_era = days - era * 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

fn filters(record: &Record, table: &Table<'_>) -> String {
    let mut names: Vec<&str> = table.columns.iter().map(|column| column.subject).collect();
    names.dedup();
    let mut methods: Vec<String> = Vec::new();
    for cell in &record.cells {
        let name = method(cell);
        if !methods.contains(&name) {
            methods.push(name);
        }
    }
    let boxes = |kind: &str, values: &[&str]| -> String {
        let one = |value: &&str| {
            let value = escaped(value);
            format!(
                "<label><input type=\"checkbox\" name=\"{kind}\" value=\"{value}\" checked> {value}</label> "
            )
        };
        values.iter().map(one).collect()
    };
    let methods: Vec<&str> = methods.iter().map(String::as_str).collect();
    let legend = [
        ("p0", "", "below 0.1"),
        ("p2", "", "below 3"),
        ("p4", "", "below 30: PASS"),
        ("marginal", "~", "below 300: MARGINAL"),
        ("fail", "✕", "FAIL"),
        ("error", "!", "ERROR"),
        ("unknown", "?", "UNKNOWN"),
        ("unsupported", "–", "UNSUPPORTED"),
        ("skipped", "s", "SKIPPED"),
    ];
    let legend = legend.map(|(class, sign, words)| {
        format!("<span><span class=\"cell {class}\">{sign}</span> {words}</span>")
    });
    format!(
        "<p>Each square is one check on one subject, in one storage type and for one method. Its colour \
         is the largest ratio of error to what rounding explains; a check passes below {THRESHOLD}. \
         Squares can be opened.</p>\n<div class=\"legend\">{}</div>\n\
         <div class=\"bar\"><span>{}</span><span>{}</span>\
         <label><input type=\"checkbox\" id=\"bad\"> only rows that are not fine</label></div>\n",
        legend.join(""),
        boxes("subject", &names),
        boxes("method", &methods),
    )
}

fn matrix(record: &Record, table: &Table<'_>) -> String {
    let heads = table.columns.iter().map(|column| {
        format!(
            "<th scope=\"col\" data-subject=\"{0}\">{0}<br><span class=\"dim\">{1}</span></th>",
            escaped(column.subject),
            column.dtype
        )
    });
    let mut text = format!(
        "<div class=\"scroll\"><table id=\"matrix\">\n<thead><tr><th scope=\"col\">check</th>{}</tr></thead>\n<tbody>\n",
        heads.collect::<String>()
    );
    let numbers = Numbers(&record.cells);
    for (check, title) in &table.rows {
        text += &format!(
            "<tr><th scope=\"row\">{}<small>{}</small></th>",
            escaped(check),
            escaped(title)
        );
        for column in &table.columns {
            text += &place(table, check, column, &numbers);
        }
        text += "</tr>\n";
    }
    text + "</tbody></table></div>\n<section id=\"open\" aria-live=\"polite\" hidden><strong></strong><pre></pre></section>\n"
}

/// The number of a cell in the page's data.
struct Numbers<'r>(&'r [Cell]);

impl Numbers<'_> {
    fn number(&self, cell: &Cell) -> usize {
        let same = |other: &Cell| std::ptr::eq(other, cell);
        self.0.iter().position(same).unwrap_or_default()
    }
}

fn place(table: &Table<'_>, check: &str, column: &Column<'_>, numbers: &Numbers<'_>) -> String {
    let buttons = table.at(check, column).into_iter().map(|cell| {
        let (class, sign) = look(cell);
        let bad = if cell.verdict.is_fine() { "" } else { " data-bad" };
        let name = method(cell);
        let words = escaped(&format!(
            "{name}: {}, ratio {}",
            cell.verdict.name(),
            short(cell.ratio)
        ));
        format!(
            "<button class=\"cell {class}\" data-k=\"{}\" data-method=\"{name}\"{bad} aria-pressed=\"false\" \
             aria-label=\"{words}\" title=\"{words}\">{sign}</button>",
            numbers.number(cell)
        )
    });
    format!(
        "<td data-subject=\"{}\">{}</td>",
        escaped(column.subject),
        buttons.collect::<String>()
    )
}

/// Class and sign: the verdict is never told by colour alone. A pass has its method's letter.
fn look(cell: &Cell) -> (&'static str, String) {
    let letter = method(cell).chars().next().unwrap_or('a');
    // "f" would be both.
    let letter = match method(cell).as_str() {
        "full" => 'F',
        _ => letter,
    };
    match cell.verdict {
        Verdict::Pass => {
            let shade = match cell.ratio {
                x if x < 0.1 => "p0",
                x if x < 1.0 => "p1",
                x if x < 3.0 => "p2",
                x if x < 10.0 => "p3",
                _ => "p4",
            };
            (shade, letter.to_string())
        }
        Verdict::Marginal => ("marginal", "~".into()),
        Verdict::Fail => ("fail", "✕".into()),
        Verdict::Error => ("error", "!".into()),
        Verdict::Unknown => ("unknown", "?".into()),
        Verdict::Unsupported => ("unsupported", "–".into()),
        Verdict::Skipped => ("skipped", "s".into()),
    }
}

fn method(cell: &Cell) -> String {
    cell.method
        .map_or_else(|| "all".to_string(), |method| method.to_string())
}

fn subjects(record: &Record) -> String {
    let class = |class: Stability| match class {
        Stability::Kappa => "kappa",
        Stability::KappaSquared => "kappa squared",
    };
    let rows = record.subjects.iter().map(|subject| {
        let attained = record.cells.iter().filter(|cell| cell.subject == subject.name);
        let attained = attained.filter_map(|cell| cell.attained).max();
        let mark = match attained {
            Some(attained) if attained > subject.class => " (weaker than declared)",
            _ => "",
        };
        let manifest = serde_json::to_string(&subject.manifest).unwrap_or_default();
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}{mark}</td><td class=\"mono\">{}</td></tr>\n",
            escaped(&subject.name),
            escaped(&subject.version),
            class(subject.class),
            attained.map_or("", class),
            escaped(subject.command.as_deref().unwrap_or(&manifest)),
        )
    });
    format!(
        "<h2>Subjects</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">name</th>\
         <th scope=\"col\">version</th><th scope=\"col\">error declared to grow like</th>\
         <th scope=\"col\">seen to grow like</th><th scope=\"col\">command or manifest</th></tr></thead>\n\
         <tbody>\n{}</tbody></table></div>\n",
        rows.collect::<String>()
    )
}

fn exercised(record: &Record) -> String {
    let names = record.subjects.iter().map(|subject| {
        let name = escaped(&subject.name);
        format!("<th scope=\"col\" data-subject=\"{name}\">{name}</th>")
    });
    let names = names.collect::<String>();
    let rows = coverage(record).into_iter().map(|(feature, counts)| {
        let counts = counts.iter().zip(&record.subjects).map(|(count, subject)| {
            let zero = if *count == 0 { " zero" } else { "" };
            let name = escaped(&subject.name);
            format!("<td class=\"n{zero}\" data-subject=\"{name}\">{count}</td>")
        });
        let counts = counts.collect::<String>();
        format!(
            "<tr><th scope=\"row\">{}</th>{counts}</tr>\n",
            escaped(&feature)
        )
    });
    format!(
        "<h2>What the cases went through</h2>\n<div class=\"scroll\"><table>\n<thead><tr>\
         <th scope=\"col\">branch, decade of kappa or option</th>{names}</tr></thead>\n<tbody>\n{}</tbody></table></div>\n",
        rows.collect::<String>()
    )
}
