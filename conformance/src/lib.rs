//! Holding implementations of LoRA-Pro against the laws that they must obey.
//!
//! | module | what |
//! |---|---|
//! | [`case`], [`replay`] | recorded trajectories and how a backend follows them |
//! | [`sample`], [`cases`] | adapters with prescribed spectra, described by a few numbers, and random ones |
//! | [`vectors`] | the suite of such trajectories: which, what for, how they are made |
//! | [`subject`] | what is held against the laws: any backend, seen through core's contract |
//! | [`residual`] | scaled errors and their one threshold |
//! | [`laws`] | the laws, one file each |
//! | [`planted`] | bugs that the laws must see |
//! | [`check`], [`suite`], [`matrix`] | one check, one cell of the matrix, a whole run |
//! | [`verdict`], [`record`], [`report`] | what can be said of a subject, how it is written down and shown |
//! | [`regression`] | failures, kept |
//! | [`testing`] | the suite as tests of another crate |
//! | [`remote`] | implementations in any language, behind a protocol of lines and files |
//! | [`batch`], [`layout`] | adapters stepped together, as bits; tensors as others might have them in memory |
//! | [`coded`], [`rounding`] | 8-bit moments; how updates reach 16-bit parameters |
//! | [`wild`] | random cases of any condition, with any options |
//! | [`differential`], [`explained`] | a backend against the reference, and how far apart rounding puts them |

pub mod batch;
pub mod case;
pub mod cases;
pub mod check;
pub mod coded;
pub mod differential;
pub mod explained;
mod guard;
pub mod laws;
pub mod layout;
pub mod matrix;
pub mod options;
pub mod planted;
mod probe;
pub mod record;
pub mod regression;
pub mod remote;
pub mod replay;
pub mod report;
pub mod residual;
pub mod rounding;
pub mod sample;
mod shrink;
pub mod smoke;
pub mod subject;
pub mod suite;
pub mod testing;
pub mod vectors;
pub mod verdict;
pub mod wild;
