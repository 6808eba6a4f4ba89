//! Numbers, dates and verdicts as all reports put them.

use crate::record::{Cell, Stability};
use crate::residual::THRESHOLD;
use crate::sample::CaseSpec;
use crate::verdict::Verdict;

use super::escape;
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
        Verdict::Skipped => "Somebody has decided not to look, and has said why.".into(),
        Verdict::Unsupported => "The subject says that it does not do this.".into(),
        Verdict::Marginal => format!("The worst ratio is from {THRESHOLD} to {ten}."),
        Verdict::Fail => format!("The worst ratio is {ten} or more, or is not a number."),
        Verdict::Error => {
            "The subject gave up: an error where none is due, a crash, a time-out.".into()
        }
        Verdict::Unknown => "The checker itself failed; nothing is known of the subject.".into(),
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

/// A number in three digits.
pub fn number(x: f64) -> String {
    // Rounded first: 999.9 has to count as 1000.
    let rounded: f64 = format!("{x:.2e}").parse().unwrap_or(x);
    match rounded.abs() {
        0.0 => "0".into(),
        size if (1e-2..1e3).contains(&size) => format!("{rounded}"),
        _ => format!("{rounded:e}"),
    }
}

/// A length of time.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 1.0 => format!("{} ms", (1000.0 * seconds).round()),
        0..60 => format!("{} s", number(seconds)),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// The date and time of seconds since 1970.
pub fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years from March on, so that the day which some have and others lack is the last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute) = (rest / 3600, rest % 3600 / 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// How an error grows, in symbols.
pub fn stability(class: Stability) -> &'static str {
    match class {
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
    let cells = plural(required, "required cell");
    let outcome = match record.failures().values().sum::<u32>() {
        _ if required == 0 => "no required cell was checked".into(),
        0 => format!("{cells}, all fine"),
        bad => format!("{cells}, {bad} not fine"),
    };
    match record.interrupted() {
        true => format!("Interrupted: the record has no end. So far, {outcome}."),
        false => format!("{}{}.", outcome[..1].to_uppercase(), &outcome[1..]),
    }
}

/// `1 cell`, `2 cells`.
pub fn plural(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
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
        ("started", date(run.started)),
        ("took", took),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_767_225_599), "2025-12-31 23:59 UTC");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn numbers() {
        let words = [0.0, 1.0, 0.012345, 29.96, 299.999, 999.9, 1e4, 1.5e-9, -2.5].map(number);
        assert_eq!(
            words,
            [
                "0", "1", "0.0123", "30", "300", "1e3", "1e4", "1.5e-9", "-2.5"
            ]
        );
    }

    #[test]
    fn durations() {
        let words = [0.0123, 12.34, 61.0, 3_725.0].map(duration);
        assert_eq!(words, ["12 ms", "12.3 s", "1 min 1 s", "1 h 2 min"]);
    }
}
