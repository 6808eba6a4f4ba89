//! A small picture for a front page.

use crate::verdict::Verdict;

use super::escape;
use super::read::Record;

const LEFT: &str = "LoRA-Pro conformance";

/// A badge, `LoRA-Pro conformance | pass`, as SVG. Only required cells count.
pub fn badge(record: &Record) -> String {
    let (right, color) = outcome(record);
    let (left_width, right_width) = (width(LEFT), width(&right));
    let total = left_width + right_width;
    let words = escape::markup(&format!("{LEFT}: {right}"));
    let (left_text, right_text) = (text(0, LEFT), text(left_width, &right));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total}\" height=\"20\" role=\"img\" \
         aria-label=\"{words}\">\n\
         <title>{words}</title>\n\
         <clipPath id=\"round\"><rect width=\"{total}\" height=\"20\" rx=\"3\"/></clipPath>\n\
         <g clip-path=\"url(#round)\">\n\
         <rect width=\"{left_width}\" height=\"20\" fill=\"#3b4249\"/>\n\
         <rect x=\"{left_width}\" width=\"{right_width}\" height=\"20\" fill=\"{color}\"/>\n\
         </g>\n\
         <g fill=\"#fff\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\" \
         text-anchor=\"middle\">\n{left_text}{right_text}</g>\n</svg>\n"
    )
}

/// The words on the right and the colour behind them.
fn outcome(record: &Record) -> (String, &'static str) {
    let failures = record.failures();
    let mut words: Vec<String> = Vec::new();
    if record.interrupted() {
        words.push("interrupted".into());
    }
    for (verdict, count) in failures.iter().rev() {
        words.push(format!("{count} {}", verdict.name().to_lowercase()));
    }
    if words.is_empty() {
        let passed = record.counts().contains_key(&Verdict::Pass);
        words.push(if passed { "pass" } else { "nothing checked" }.into());
    }
    let color = match failures.keys().last() {
        Some(Verdict::Marginal) => "#a85b00",
        Some(_) => "#b3261e",
        None if words == ["pass"] => "#0b67ad",
        None => "#6b7480",
    };
    (words.join(", "), color)
}

/// Room for a text with 10 pixels on each side of it.
fn width(text: &str) -> usize {
    20 + letters(text)
}

/// About as wide as Verdana's letters are; the text is stretched to what this says.
fn letters(text: &str) -> usize {
    let letter = |c| match c {
        'f' | 'i' | 'j' | 'l' | 'r' | 't' | ' ' | ',' | '-' => 4,
        'm' | 'w' => 10,
        _ => 7,
    };
    text.chars().map(letter).sum()
}

fn text(x: usize, words: &str) -> String {
    let (middle, length) = (x + width(words) / 2, letters(words));
    let words = escape::markup(words);
    format!("<text x=\"{middle}\" y=\"14\" textLength=\"{length}\">{words}</text>\n")
}
