//! How far along a suite is: a bar on a terminal; elsewhere nothing, since each suite has its line.

use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};

/// One suite's bar.
pub struct SuiteProgress(ProgressBar);

impl SuiteProgress {
    /// Nothing is done.
    pub fn new() -> Self {
        // The template is a constant; without it the default is fine.
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        SuiteProgress(ProgressBar::new(0).with_style(style))
    }

    /// One that is not drawn: for tests.
    pub fn hidden() -> Self {
        SuiteProgress(ProgressBar::hidden())
    }

    /// `done` of `total` steps are done; `what` comes next.
    pub fn set(&self, done: usize, total: usize, what: &str) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
        self.0.set_message(what.to_string());
    }
}

impl Default for SuiteProgress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SuiteProgress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Writes a line to standard error, where a failure to do so has nowhere to be told.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
