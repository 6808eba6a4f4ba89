//! The inner loops, each written once over [`crate::simd::Real`] and `pulp::Simd`.

mod adam;
mod gram;
mod product;
mod wide;

pub(crate) use adam::{AdamNumbers, adam};
pub(crate) use gram::{Grams, gathered, gram};
pub(crate) use product::{Coefficients, product};
pub(crate) use wide::{LaneSums, TileOperands, wide_tile};
