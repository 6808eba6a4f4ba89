//! How far along a long command is: a bar on a terminal, a few plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::output::note;

/// Lines that a log gets, where there is no terminal.
const LINES: usize = 10;

/// One task's progress, on standard error.
pub struct Progress {
    /// Drawn on a terminal; elsewhere it only estimates the time that is left.
    bar: ProgressBar,
    /// Where there is no terminal, the tenths that are told.
    lines: Option<Mutex<usize>>,
}

impl Progress {
    /// Starts at nothing done.
    pub fn new() -> Self {
        if !stderr().is_terminal() {
            return Progress {
                bar: ProgressBar::hidden(),
                lines: Some(Mutex::new(0)),
            };
        }
        let style = "{bar:30} {pos}/{len} {elapsed}, {eta} left {msg}";
        // The template is a constant that the tests do not reach; without it the default is fine.
        let style = ProgressStyle::with_template(style);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress {
            bar: ProgressBar::new(0).with_style(style),
            lines: None,
        }
    }

    /// `done` of `total` parts are done; `what` is in progress.
    pub fn set(&self, done: usize, total: usize, what: &str) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        match &self.lines {
            None => self.bar.set_message(what.to_string()),
            Some(last) => {
                let now = LINES * done / total.max(1);
                // A poisoned lock only means that another thread failed while it told.
                let mut last = last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if now > *last {
                    *last = now;
                    note(&format!("{done}/{total} {what}{}", self.left()));
                }
            }
        }
    }

    /// The time that is probably left, where it is worth telling.
    fn left(&self) -> String {
        let left = self.bar.eta();
        match left.as_secs() {
            0 => String::new(),
            _ => format!(", {} left", HumanDuration(left)),
        }
    }

    /// Removes the bar; lines stay.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
