//! Standard output carries results, standard error everything else.

use std::io::{ErrorKind, Write, stdout};

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
