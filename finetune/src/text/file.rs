//! The text of a file and its format.

use std::{fs, path::Path};

use lora_pro_core::Error;

/// A longer line is taken for a mistake: it would be far longer than what a model reads at once.
pub(super) const MAX_LINE: usize = 4 << 20;

/// How a file holds its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    Tsv,
    JsonLines,
}

impl Format {
    /// By the ending of the file's name.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        match ending.to_ascii_lowercase().as_str() {
            "csv" => Ok(Format::Csv),
            "tsv" => Ok(Format::Tsv),
            "jsonl" | "ndjson" => Ok(Format::JsonLines),
            _ => Err(Error::file(
                path,
                "the name of a file with text must end in .csv, .tsv or .jsonl, which tells its format",
            )),
        }
    }
}

/// The text of a UTF-8 file without its byte order mark.
///
/// Rejects what is no file, has nothing but blanks, is not UTF-8 (with the line), or has a line of
/// more than `MAX_LINE` bytes.
pub(super) fn read_text(path: &Path) -> Result<String, Error> {
    let fail = |reason: String| Error::file(path, reason);
    let metadata = fs::metadata(path).map_err(|error| Error::file(path, error))?;
    if !metadata.is_file() {
        return Err(fail("it is no file".into()));
    }
    let bytes = fs::read(path).map_err(|error| Error::file(path, error))?;
    let mut text = String::from_utf8(bytes).map_err(|error| fail(not_utf8(&error)))?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    if text.trim().is_empty() {
        return Err(fail("the file is empty".into()));
    }
    match (1..)
        .zip(text.lines())
        .find(|(_, line)| line.len() > MAX_LINE)
    {
        Some((number, line)) => Err(fail(format!(
            "line {number} has {} bytes, but at most {MAX_LINE} are read; cut long texts into parts",
            line.len()
        ))),
        None => Ok(text),
    }
}

fn not_utf8(error: &std::string::FromUtf8Error) -> String {
    let bytes = error.as_bytes();
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return "the file is UTF-16; save it as UTF-8".into();
    }
    let valid = error.utf8_error().valid_up_to();
    let line = 1 + bytes
        .iter()
        .take(valid)
        .filter(|byte| **byte == b'\n')
        .count();
    let byte = bytes.get(valid).copied().unwrap_or_default();
    format!("line {line} is not UTF-8, from byte 0x{byte:02x} on; save the file as UTF-8")
}
