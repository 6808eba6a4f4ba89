//! Holding implementations of LoRA-Pro against the laws that they must obey.
//!
//! | module | what |
//! |---|---|
//! | [`case`], [`replay`] | recorded trajectories and how a backend follows them |
//! | [`sample`], [`cases`] | adapters with prescribed spectra, described by a few numbers, and random ones |
//! | [`vectors`] | the suite of such trajectories: which, what for, how they are made |
//! | [`subject`] | what is held against the laws: any backend, seen through core's contract |
//! | [`methods`] | what checks have to know of a method |
//! | [`residual`] | scaled errors and their one threshold |
//! | [`laws`] | the laws, one file each |
//! | [`check`], [`suite`], [`matrix`] | one check, one cell of the matrix, a whole run |
//! | [`verdict`], [`record`], [`report`] | what can be said of a subject, how it is written down and shown |
//! | [`regression`] | failures, kept |
//! | [`testing`] | the suite as tests of another crate |
//! | [`remote`] | implementations in any language, behind a protocol of lines and files |
//! | [`run`] | adapters on a backend with the host tensors that each step borrows |
//! | [`support`] | what tests of backends use beside the suite |
//! | [`differential`], [`options`] | a backend against the reference, with any options |
//! | [`error_bounds`] | how far rounding may put the results of a step |

pub mod case;
pub mod cases;
pub mod check;
pub mod differential;
pub mod error_bounds;
mod guard;
pub mod laws;
pub mod matrix;
pub mod methods;
pub mod options;
mod probe;
pub mod record;
pub mod regression;
pub mod remote;
pub mod replay;
pub mod report;
pub mod residual;
pub mod run;
pub mod sample;
mod shrink;
pub mod smoke;
pub mod subject;
pub mod suite;
pub mod support;
pub mod testing;
pub mod vectors;
pub mod verdict;
