//! How fast LoRA-Pro steps, against what this machine could do at best.
//!
//! A time alone says little. So every row of [`rows`] is compared with a *floor* that is measured in
//! the same run and with the same threads: an in-place pass over the bytes that the step must move
//! ([`pass`]), the operations that it needs at the rate of a matrix product ([`matmul`]), or another
//! step. What a step must move and compute is counted in [`model`]. Before a row is timed, its
//! answer is compared with the reference ([`check`]).
//!
//! Rows and models are data: `rows.toml` and `models/*.toml`.

pub mod check;
pub mod fill;
pub mod machine;
pub mod matmul;
pub mod memory;
pub mod model;
pub mod others;
pub mod pass;
mod pool;
pub mod report;
pub mod rounds;
pub mod rows;
mod run;
pub mod shapes;
pub mod size;
pub mod stats;
pub mod verdict;
pub mod work;

pub use run::Bench;
