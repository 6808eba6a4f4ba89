//! Holding implementations of LoRA-Pro against the laws that they must obey.
//!
//! | module | what |
//! |---|---|
//! | [`case`], [`replay`] | recorded trajectories and how a backend follows them |
//! | [`sample`] | adapters with prescribed spectra, described by a few numbers |
//! | [`subject`] | what is held against the laws: any backend, seen through core's contract |
//! | [`residual`] | scaled errors and their one threshold |
//! | [`laws`] | the laws, one file each |

pub mod case;
pub mod laws;
pub mod replay;
pub mod residual;
pub mod sample;
pub mod subject;
