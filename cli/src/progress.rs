//! How far along a long command is: a bar on a terminal, a few plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::note;

/// Lines that a log gets, where there is no terminal.
const LINES: usize = 10;

/// One task's progress, on standard error.
pub enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// Elsewhere: the tenths that are done.
    Lines(Mutex<usize>),
}

impl Progress {
    /// Starts at nothing done.
    pub fn new() -> Self {
        if !stderr().is_terminal() {
            return Progress::Lines(Mutex::new(0));
        }
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
        // The template is a constant that the tests do not reach; without it the default is fine.
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress::Bar(ProgressBar::new(0).with_style(style))
    }

    /// `done` of `total` parts are done; `what` is in progress.
    pub fn set(&self, done: usize, total: usize, what: &str) {
        match self {
            Progress::Bar(bar) => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message(what.to_string());
            }
            Progress::Lines(last) => {
                let now = LINES * done / total.max(1);
                // A poisoned lock only means that another thread failed while it told.
                let mut last = last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if now > *last {
                    *last = now;
                    note(&format!("{done}/{total} {what}"));
                }
            }
        }
    }

    /// Removes the bar; lines stay.
    pub fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
