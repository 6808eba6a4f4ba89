//! `report.html`: one file, no network, light and dark, wide and narrow.

mod figures;
mod page;

pub use page::html;
