//! A page for people: one file, no network, light and dark, mouse and keyboard.

use super::read::Record;
use super::wording;
use lora_pro_report::page::page;

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
    let title = format!("LoRA-Pro conformance: {}", wording::headline(record));
    let main = [
        sections::head(record),
        filters::filters(record),
        grid::grid(record),
        sections::legend(),
        sections::not_fine(record),
        sections::subjects(record),
        sections::coverage(record),
    ];
    let policy = format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n");
    let body = format!(
        "<main>\n{}</main>\n{}<script>\n{SCRIPT}</script>\n",
        main.concat(),
        grid::panel(record),
    );
    page(&title, STYLE, &policy, &body)
}
