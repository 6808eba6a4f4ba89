//! Holding implementations of LoRA-Pro against the laws that they must obey.
//!
//! | module | what |
//! |---|---|
//! | [`case`], [`replay`] | recorded trajectories and how a backend follows them |
//! | [`sample`], [`cases`] | adapters with prescribed spectra, described by a few numbers, and random ones |
//! | [`subject`] | what is held against the laws: any backend, seen through core's contract |
//! | [`residual`] | scaled errors and their one threshold |
//! | [`laws`] | the laws, one file each |
//! | [`planted`] | bugs that the laws must see |
//! | [`verdict`], [`record`] | what can be said of a subject, and how it is written down |
//! | [`remote`] | implementations in any language, behind a protocol of lines and files |
//! | [`differential`], [`explained`] | a backend against the reference, and how far apart rounding puts them |

pub mod case;
pub mod cases;
pub mod check;
pub mod differential;
pub mod explained;
mod guard;
pub mod laws;
pub mod matrix;
pub mod options;
pub mod planted;
mod probe;
pub mod record;
pub mod regression;
pub mod remote;
pub mod replay;
pub mod residual;
pub mod sample;
pub mod smoke;
pub mod subject;
pub mod suite;
pub mod testing;
pub mod verdict;
