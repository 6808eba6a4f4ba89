//! All r x r work, in f64: faer for products and eigen-decompositions.
//!
//! The formulas are those of the derivation; nothing here depends on m or n.

mod closed_form;
mod eigen;
mod inverse;
mod square;
mod work;

pub(crate) use closed_form::{Side, Solved};
pub(crate) use square::Square;
pub(crate) use work::{Work, combine, norm, trace, trace_product};
