//! Standard output carries results, standard error everything else.

use std::io::{ErrorKind, Write, stdout};
use std::path::Path;

use lora_pro_core::Error;

use crate::failure::Failure;

/// Writes a text and a line's end to standard output.
///
/// `println!` would panic where the reader has left.
pub fn say(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Run(format!("standard output: {error}")),
    })
}

/// Writes a line to standard error, where a failure to do so has nowhere to be told.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Minutes of work should not end with a folder that is not there.
pub fn check_place(path: &Path) -> Result<(), Error> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if !folder.is_none_or(Path::is_dir) {
        return Err(Error::file(path, "there is no such folder to write it to"));
    }
    match path.is_dir() {
        true => Err(Error::file(path, "it is a folder")),
        false => Ok(()),
    }
}
