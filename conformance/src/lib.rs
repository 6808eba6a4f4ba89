//! Holding implementations of LoRA-Pro against the laws that they must obey.
//!
//! | module | what |
//! |---|---|
//! | [`case`], [`replay`] | recorded trajectories and how a backend follows them |
//! | [`vectors`] | the suite of such trajectories: which, what for, how they are made |
//! | [`sample`] | adapters with prescribed spectra, described by a few numbers |
//! | [`subject`] | what is held against the laws: any backend, seen through core's contract |
//! | [`residual`] | scaled errors and their one threshold |
//! | [`laws`] | the laws, one file each |
//! | [`verdict`], [`record`] | what can be said of a subject, and how it is written down |
//! | [`differential`], [`explained`] | a backend against the reference, and how far apart rounding puts them |

pub mod case;
pub mod differential;
pub mod explained;
pub mod laws;
pub mod record;
pub mod replay;
pub mod residual;
pub mod sample;
pub mod subject;
pub mod vectors;
pub mod verdict;
