//! `report.html`: one file, no network, light and dark, wide and narrow.

mod figures;
mod page;
mod plot;
mod ticks;

pub use page::html;
