//! Reports on a record: for people (`report.html`) and for machines that run tests (`junit.xml`).
//!
//! Both are functions of the record alone, so that they can be made again from it at any time.

use std::path::{Path, PathBuf};

use lora_pro_core::{Error, write_atomically};

mod coverage;
mod html;
mod junit;
mod matrix;
mod natural;
mod read;
mod wording;

pub use html::html;
pub use junit::junit;
pub use read::{Record, parse, read};

/// Writes all reports into a folder, which is made where it is missing, and returns their paths.
///
/// # Errors
/// A path that cannot be written.
pub fn write_all(folder: &Path, record: &Record) -> Result<Vec<PathBuf>, Error> {
    std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    let reports = [("report.html", html(record)), ("junit.xml", junit(record))];
    let mut paths = Vec::new();
    for (name, text) in reports {
        let path = folder.join(name);
        write_atomically(&path, text.as_bytes())?;
        paths.push(path);
    }
    Ok(paths)
}
