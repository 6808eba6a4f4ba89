//! What people look at, made from the record of a run.
//!
//! | file | for |
//! |---|---|
//! | `report.html` | people: a matrix to look at, cells to open |
//! | `report.md` | people, where pages are text |
//! | `junit.xml` | CI servers |
//! | `badge.svg` | a README |

use std::path::Path;

use lora_pro_core::{Error, write_atomically};

mod badge;
mod coverage;
mod html;
mod junit;
mod markdown;
mod read;
mod table;

pub use badge::badge;
pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use read::{Record, read};

/// Writes all reports into a folder, each of them whole or not at all.
///
/// # Errors
/// [`Error::File`] where one cannot be written.
pub fn write_all(folder: &Path, record: &Record) -> Result<(), Error> {
    for (name, text) in [
        ("report.html", html(record)),
        ("report.md", markdown(record)),
        ("junit.xml", junit(record)),
        ("badge.svg", badge(record)),
    ] {
        write_atomically(&folder.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Text between tags and in attributes, of HTML and of XML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
