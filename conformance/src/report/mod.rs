//! Reports on a record: for people (`report.md`, `report.html`), for machines that run tests
//! (`junit.xml`) and for a front page (`badge.svg`).
//!
//! All are functions of the record alone, so that they can be made again from it at any time.

use std::path::{Path, PathBuf};

use lora_pro_core::{Error, write_atomically};

mod badge;
mod coverage;
mod escape;
mod html;
mod junit;
mod markdown;
mod matrix;
mod natural;
mod read;
mod words;

pub use badge::badge;
pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use read::{Record, parse, read};

/// Writes all reports into a folder, which is made where it is missing, and returns their paths.
///
/// # Errors
/// A path that cannot be written.
pub fn write_all(folder: &Path, record: &Record) -> Result<Vec<PathBuf>, Error> {
    std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    let reports = [
        ("report.md", markdown(record)),
        ("report.html", html(record)),
        ("junit.xml", junit(record)),
        ("badge.svg", badge(record)),
    ];
    let mut paths = Vec::new();
    for (name, text) in reports {
        let path = folder.join(name);
        write_atomically(&path, text.as_bytes())?;
        paths.push(path);
    }
    Ok(paths)
}
