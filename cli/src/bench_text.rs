//! A benchmark's report as text.

use lora_pro_bench::machine::Rates;
use lora_pro_bench::report::{GoalReport, Measured, Report, RowOutcome, RowReport};
use lora_pro_bench::rows::{Limit, Row};
use lora_pro_bench::size::Size;

use lora_pro_report::table::{Column, Table};

/// Shown where a number does not exist.
const NONE: &str = "-";

/// What others may use of a machine that counts as quiet.
const QUIET: f64 = 0.03;

/// One line of the table: a row with one of its goals, where it was measured.
struct Line {
    row: RowReport,
    found: Option<(Measured, GoalReport)>,
}

/// The machine, the table, and what is to be said about single rows.
pub fn text(report: &Report) -> String {
    let lines: Vec<Line> = report.rows.iter().flat_map(lines).collect();
    let mut parts = vec![head(report), Table::new(columns(), &lines).text()];
    let remarks: Vec<String> = report.rows.iter().filter_map(remark).collect();
    if !remarks.is_empty() {
        parts.push(remarks.join("\n"));
    }
    parts.extend(others(report));
    if report.size == Size::Quick {
        parts.push("--quick: tiny shapes in the cache; it proves nothing about the goals".into());
    }
    parts.join("\n\n")
}

/// Every row with its goals, for `--list`.
pub fn list(rows: &[Row]) -> String {
    let columns = vec![
        Column::new("", "row", "its name", |row: &Row| row.id.clone()),
        Column::new("", "goal: at most", "all of them", |row: &Row| goals(row)),
    ];
    let what = rows.iter().map(|row| format!("  {}: {}", row.id, row.what));
    let what: Vec<String> = what.collect();
    format!(
        "{}\n\n{}",
        Table::new(columns, rows).text(),
        what.join("\n")
    )
}

fn goals(row: &Row) -> String {
    let limit = |limit: &Limit| format!("{} x {}", limit.times, limit.floor);
    let goal = |limits: &Vec<Limit>| {
        let limits: Vec<String> = limits.iter().map(limit).collect();
        limits.join(" or ")
    };
    let goals: Vec<String> = row.goals.iter().map(goal).collect();
    goals.join("; ")
}

fn lines(row: &RowReport) -> Vec<Line> {
    let line = |found| Line {
        row: row.clone(),
        found,
    };
    match &row.outcome {
        RowOutcome::Measured(measured) => {
            let goals = measured.goals.iter();
            goals
                .map(|goal| line(Some((measured.clone(), goal.clone()))))
                .collect()
        }
        _ => vec![line(None)],
    }
}

fn columns() -> Vec<Column<Line>> {
    vec![
        Column::new("", "row", "its name", |line: &Line| line.row.id.clone()),
        Column::new("", "measured", "median", |line| {
            cell(line, |measured, _| value(line, measured.value.median))
        }),
        Column::new("floor", "of", "what is compared with", |line| {
            cell(line, |_, goal| goal.limits[goal.largest].floor.clone())
        }),
        Column::new("floor", "measured", "median", |line| {
            cell(line, |_, goal| {
                value(line, goal.limits[goal.largest].value.median)
            })
        }),
        Column::new("ratio", "median", "of the rounds", |line| {
            cell(line, |_, goal| format!("{:.3}", goal.ratio.median))
        }),
        Column::new("ratio", "quartiles", "of the rounds", |line| {
            cell(line, |_, goal| {
                let [low, high] = goal.ratio.quartiles;
                format!("{low:.3} {high:.3}")
            })
        }),
        Column::new("ratio", "goal", "at most", |line| {
            cell(line, |_, goal| {
                format!("{:.3}", goal.limits[goal.largest].times)
            })
        }),
        Column::new("", "verdict", "by the quartiles", verdict),
        Column::new("rate", "GB/s", "compulsory bytes over time", |line| {
            rate(line, |measured| measured.traffic)
        }),
        Column::new("rate", "GFLOP/s", "needed operations over time", |line| {
            rate(line, |measured| measured.operations)
        }),
    ]
}

fn cell(line: &Line, text: impl Fn(&Measured, &GoalReport) -> String) -> String {
    match &line.found {
        Some((measured, goal)) => text(measured, goal),
        None => NONE.into(),
    }
}

fn verdict(line: &Line) -> String {
    match &line.row.outcome {
        RowOutcome::Wrong { .. } => "WRONG".into(),
        RowOutcome::NotAvailable { .. } => "not available".into(),
        RowOutcome::Measured(_) => cell(line, |_, goal| goal.verdict.to_string()),
    }
}

/// Seconds as milliseconds, bytes as megabytes.
fn value(line: &Line, value: f64) -> String {
    match line.row.measure.is_time() {
        true => format!("{:.2} ms", 1e3 * value),
        false => format!("{:.1} MB", value / 1e6),
    }
}

fn rate(line: &Line, what: impl Fn(&Measured) -> u64) -> String {
    match line.row.measure.is_time() {
        true => cell(line, |measured, _| {
            giga(what(measured) as f64 / measured.value.median)
        }),
        false => NONE.into(),
    }
}

fn giga(rate: f64) -> String {
    format!("{:.1}", rate / 1e9)
}

fn remark(row: &RowReport) -> Option<String> {
    match &row.outcome {
        RowOutcome::Wrong { reason } => Some(format!("{}: WRONG, not measured: {reason}", row.id)),
        RowOutcome::NotAvailable { reason } => Some(format!("{}: not available: {reason}", row.id)),
        RowOutcome::Measured(_) => None,
    }
}

/// What others used of the machine, where it is enough to matter.
fn others(report: &Report) -> Option<String> {
    let timed = report.rows.iter().filter(|row| row.measure.is_time());
    let shares = timed.filter_map(|row| match &row.outcome {
        RowOutcome::Measured(measured) => measured.others,
        _ => None,
    });
    let most = shares.max_by(f64::total_cmp)?;
    (most > QUIET).then(|| {
        let percent = 100.0 * most;
        format!("others used up to {percent:.0} % of the machine meanwhile: not to be relied on")
    })
}

fn head(report: &Report) -> String {
    let (machine, backend) = (&report.machine, &report.backend);
    let Rates {
        pass,
        pass_in_cache,
        matmul,
        matmul_size,
        ..
    } = machine.rates;
    format!(
        "{}, {} cores, {} {}\nbackend {} {}, {}, {} threads where a row does not say otherwise\n\
         in-place pass over memory: {} GB/s (in the cache: {} GB/s)\n\
         faer's matrix product in f32, one of side {matmul_size} on each thread: {} GFLOP/s",
        machine.processor,
        machine.cores,
        machine.arch,
        machine.os,
        backend.name,
        backend.version,
        backend.code_path,
        report.threads,
        giga(pass),
        giga(pass_in_cache),
        giga(matmul),
    )
}
