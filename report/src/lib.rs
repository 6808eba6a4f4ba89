//! How reports look: numbers and dates as text, tables, line plots, pages in one file.
//!
//! | module | what |
//! |---|---|
//! | [`mod@format`] | numbers, lengths of time, dates |
//! | [`escape`] | text inside of HTML, JSON and a shell's command line |
//! | [`table`] | the same cells for a terminal, a page and Markdown |
//! | [`plot`] | line plots as SVG |
//! | [`page`] | what is around a page's content |

pub mod escape;
pub mod format;
pub mod page;
pub mod plot;
pub mod table;
mod ticks;
