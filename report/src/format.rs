//! Numbers, lengths of time and dates as text.

use std::time::{Duration, UNIX_EPOCH};

/// Three digits: `0.0123`, `1e3`.
///
/// ```
/// use lora_pro_report::format::number;
/// assert_eq!([0.0, 0.012345, 29.96, 999.9, -2.5].map(number), ["0", "0.0123", "30", "1e3", "-2.5"]);
/// ```
pub fn number(x: f64) -> String {
    // Rounded first: 999.9 has to count as 1000.
    let rounded: f64 = format!("{x:.2e}").parse().unwrap_or(x);
    match rounded.abs() {
        0.0 => "0".into(),
        size if (1e-2..1e3).contains(&size) => format!("{rounded}"),
        _ => format!("{rounded:e}"),
    }
}

/// At least three digits, without an exponent: `1234`, `0.00120`.
///
/// ```
/// use lora_pro_report::format::fixed;
/// assert_eq!([1234.5, 12.345, 0.0012].map(fixed), ["1234", "12.3", "0.00120"]);
/// ```
pub fn fixed(x: f64) -> String {
    let before = x.abs().max(1e-9).log10().floor() as i32;
    let places = (2 - before).clamp(0, 6) as usize;
    format!("{x:.places$}")
}

/// A length of time.
///
/// ```
/// use lora_pro_report::format::duration;
/// assert_eq!([0.0123, 12.34, 61.0, 3725.0].map(duration), ["12 ms", "12.3 s", "1 min 1 s", "1 h 2 min"]);
/// ```
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 1.0 => format!("{} ms", (1000.0 * seconds).round()),
        0..60 => format!("{} s", number(seconds)),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Day and time of seconds since 1970, in UTC: `2000-02-29 00:00`.
///
/// ```
/// assert_eq!(lora_pro_report::format::date_time(951_782_400), "2000-02-29 00:00");
/// ```
pub fn date_time(seconds: u64) -> String {
    // The format ends with the year 9999.
    let seconds = seconds.min(253_402_300_799);
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text[..16].replace('T', " ")
}

/// The day alone.
///
/// ```
/// assert_eq!(lora_pro_report::format::day(951_782_400), "2000-02-29");
/// ```
pub fn day(seconds: u64) -> String {
    date_time(seconds)[..10].into()
}

/// `1 cell`, `2 cells`.
pub fn plural(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}
