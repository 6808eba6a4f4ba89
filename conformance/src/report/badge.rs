//! A small picture for a README.

use super::Record;

/// `conformance | pass`, or how many cells are not fine.
pub fn badge(record: &Record) -> String {
    let bad = record.not_fine().len();
    let (words, colour) = match (&record.end, bad) {
        (None, _) => ("interrupted".to_string(), "#6e7681"),
        (_, 0) => ("pass".to_string(), "#1a7f37"),
        (_, 1) => ("1 cell fails".to_string(), "#cf222e"),
        (_, n) => (format!("{n} cells fail"), "#cf222e"),
    };
    let (left, right) = (150, 20 + 7 * words.len());
    let whole = left + right;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="20" role="img" aria-label="LoRA-Pro conformance: {words}">
<rect width="{left}" height="20" fill="#444c56"/><rect x="{left}" width="{right}" height="20" fill="{colour}"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,sans-serif" font-size="11">
<text x="{}" y="14">LoRA-Pro conformance</text><text x="{}" y="14">{words}</text></g></svg>
"##,
        left / 2,
        left + right / 2,
    )
}
