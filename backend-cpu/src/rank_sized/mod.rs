//! All r x r work, in f64: faer for products and eigen-decompositions.
//!
//! The formulas are those of the derivation; nothing here depends on m or n.

mod closed_form;
mod column_roots;
mod eigen;
mod equivalent;
mod inverse;
mod scratch;
mod square;

pub(crate) use closed_form::{GramInverses, InnerTerms, Projection};
pub(crate) use column_roots::ColumnRoots;
pub(crate) use equivalent::{EquivalentProducts, GramProducts, equivalent_norm};
pub(crate) use scratch::{RankScratch, combine, multiply, norm, trace};
pub(crate) use square::Square;
