//! Verdicts, cases and cells as all reports put them.

use lora_pro_report::escape;
use lora_pro_report::format::{date_time, duration, number, plural};

use crate::record::{Cell, Stability};
use crate::residual::THRESHOLD;
use crate::sample::CaseSpec;
use crate::verdict::Verdict;

use super::read::Record;

/// One character for a verdict, so that no report depends on colours.
pub fn symbol(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✓",
        Verdict::Skipped => "–",
        Verdict::Unsupported => "○",
        Verdict::Marginal => "▲",
        Verdict::Fail => "✕",
        Verdict::Error => "!",
        Verdict::Unknown => "?",
    }
}

/// What a verdict means.
pub fn meaning(verdict: Verdict) -> String {
    let ten = 10.0 * THRESHOLD;
    match verdict {
        Verdict::Pass => format!("Every ratio is below {THRESHOLD}."),
        Verdict::Skipped => "Skipped on purpose; the reason is given.".into(),
        Verdict::Unsupported => "The subject says that it does not do this.".into(),
        Verdict::Marginal => format!("The worst ratio is from {THRESHOLD} to {ten}."),
        Verdict::Fail => format!("The worst ratio is {ten} or more, or is not a number."),
        Verdict::Error => {
            "The subject gave up: an error where none is due, a crash, a time-out.".into()
        }
        Verdict::Unknown => "Not run, or the checker itself failed; nothing is known.".into(),
    }
}

/// What a ratio is.
pub fn about_ratios() -> String {
    format!(
        "A ratio is an error divided by what rounding explains: 1 is as good as the storage type \
         allows, {THRESHOLD} is the one threshold of all checks, and it is infinite where \
         something that must hold exactly does not."
    )
}

/// A ratio in three digits.
pub fn ratio(x: f64) -> String {
    match x {
        x if x.is_nan() => "nan".into(),
        x if x.is_infinite() => "inf".into(),
        x => number(x),
    }
}

/// How an error grows, in symbols.
pub fn stability(stability: Stability) -> &'static str {
    match stability {
        Stability::Kappa => "κ",
        Stability::KappaSquared => "κ²",
    }
}

/// Subject, storage type and method of a cell.
pub fn place(cell: &Cell) -> String {
    let method = cell.method.map(|method| format!(" {method}"));
    format!(
        "{} {}{}",
        cell.subject,
        cell.dtype,
        method.unwrap_or_default()
    )
}

/// Verdict, ratio where one was measured, reason where there is one.
pub fn finding(cell: &Cell) -> String {
    let mut text = verdict_and_ratio(cell);
    if let Some(reason) = &cell.reason {
        text.push_str(": ");
        text.push_str(reason);
    }
    text
}

/// Verdict, and ratio where one was measured.
pub fn verdict_and_ratio(cell: &Cell) -> String {
    match measured(cell) {
        true => format!("{}, ratio {}", cell.verdict.name(), ratio(cell.ratio)),
        false => cell.verdict.name().into(),
    }
}

/// Whether the ratio is behind the verdict.
pub fn measured(cell: &Cell) -> bool {
    matches!(
        cell.verdict,
        Verdict::Pass | Verdict::Marginal | Verdict::Fail
    )
}

/// What to type to see the failure again.
pub fn replay(cell: &Cell) -> Option<String> {
    let file = cell.replay.as_ref()?;
    Some(format!("lora-pro conform replay {}", escape::shell(file)))
}

/// A case, as names and values.
pub fn case(spec: &CaseSpec) -> Vec<(&'static str, String)> {
    let CaseSpec { m, n, r, .. } = spec;
    vec![
        (
            "W",
            format!("{m} × {n}, adapter of rank {r}, {}", spec.dtype),
        ),
        (
            "A",
            factor([*r, *n], spec.rank_a, spec.kappa_a, spec.size_a),
        ),
        (
            "B",
            factor([*m, *r], spec.rank_b, spec.kappa_b, spec.size_b),
        ),
        ("spectrum", spectrum(spec)),
        ("gradient", format!("entries up to {}", number(spec.size_g))),
        ("s", number(spec.s)),
        ("steps", spec.steps.to_string()),
        ("seed", spec.seed.to_string()),
    ]
}

/// [`case`] on one line.
pub fn case_line(spec: &CaseSpec) -> String {
    let facts = case(spec);
    let facts: Vec<_> = facts
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    facts.join("; ")
}

fn factor([rows, cols]: [usize; 2], rank: usize, kappa: f64, size: f64) -> String {
    match rank {
        0 => format!("{rows} × {cols}, zero"),
        rank => format!(
            "{rows} × {cols}, rank {rank}, κ = {}, σ₁ = {}",
            number(kappa),
            number(size)
        ),
    }
}

fn spectrum(spec: &CaseSpec) -> String {
    let name = serde_json::to_value(spec.spectrum).ok();
    let name = name
        .as_ref()
        .and_then(|name| name.as_str())
        .unwrap_or_default();
    name.replace('_', " ")
}

/// How the run went, in a sentence or two.
pub fn headline(record: &Record) -> String {
    let required = record.cells.iter().filter(|cell| cell.required).count();
    let checks = plural(required, "required check");
    let outcome = match record.failures().values().sum::<u32>() {
        _ if required == 0 => "no required check was run".into(),
        0 => format!("{checks}, none failed"),
        failed => format!("{failed} of {checks} failed"),
    };
    match record.interrupted() {
        true => format!("Interrupted: the record has no end. So far, {outcome}."),
        false => format!("{}{}.", outcome[..1].to_uppercase(), &outcome[1..]),
    }
}

/// What all reports say about a run, as names and values.
pub fn facts(record: &Record) -> Vec<(&'static str, String)> {
    let run = &record.run;
    let machine = &run.machine;
    let took = match &record.end {
        Some(end) => duration(end.seconds),
        None => "unknown: interrupted".into(),
    };
    vec![
        ("kit", run.kit.clone()),
        ("spec", run.spec.clone()),
        ("vectors", run.vectors.clone()),
        ("protocol", run.protocol.to_string()),
        (
            "machine",
            format!(
                "{}, {}, {}, {}",
                machine.cpu,
                plural(machine.threads, "thread"),
                machine.arch,
                machine.os
            ),
        ),
        ("seed", run.seed.to_string()),
        ("cases", format!("{} for each cell", run.cases)),
        ("started", format!("{} UTC", date_time(run.started))),
        ("took", took),
    ]
}
