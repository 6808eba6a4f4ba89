//! A page for people: one file, no network, light and dark, mouse and keyboard.

use super::escape::markup;
use super::read::Record;
use super::words;

mod filters;
mod grid;
mod scale;
mod sections;

/// Colours and layout.
const STYLE: &str = include_str!("html/page.css");
/// Filters, and the panel of a cell.
const SCRIPT: &str = include_str!("html/page.js");

/// The policy lets a browser refuse what the page must not do: load or send anything.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// The whole page.
pub fn html(record: &Record) -> String {
    let title = format!("LoRA-Pro conformance: {}", words::headline(record));
    let main = [
        sections::head(record),
        filters::filters(record),
        grid::grid(record),
        sections::legend(),
        sections::not_fine(record),
        sections::subjects(record),
        sections::coverage(record),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n\
         {}<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        markup(&title),
        main.concat(),
        grid::panel(record),
    )
}
