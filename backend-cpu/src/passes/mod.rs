//! The passes over what grows with m or n. Each is cut into parts that depend on shapes only, and
//! runs them on one thread or several.

mod apply;
mod factored;
mod full;
mod moments;
mod survey;
mod thin;

pub(crate) use apply::{Adjustment, Memories, Rule, Stride, apply, descend, narrow};
pub(crate) use factored::{Advancing, Averaging, Carrying, Momentum, advance, average, carry};
pub(crate) use full::{WideOperands, by_rows, form, gather, group, to_panel, wide};
pub(crate) use moments::{Coded, Moments, Shorter};
pub(crate) use survey::{Crew, survey};
pub(crate) use thin::{Source, merge, squares};
