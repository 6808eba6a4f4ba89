//! One module per command.

pub mod bench;
pub mod compare;
pub mod conform;
pub mod gap;
pub mod info;
pub mod merge;
pub mod predict;
pub mod replay;
pub mod train;
