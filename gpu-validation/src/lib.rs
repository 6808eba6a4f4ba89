//! Proves and measures the CUDA backend on a GPU.
//!
//! | module | what |
//! |---|---|
//! | [`gpu`], [`counted`] | what a GPU must be able to do; one that counts what is asked of it |
//! | [`model`] | adapters whose tensors are in device memory, and what steps them |
//! | [`effort`] | how much of everything |
//! | [`parts`] | what is proved and measured, one file each |
//! | [`result`](mod@result), [`store`] | what a part has found; results in files, and which of them still count |
//! | [`goals`] | what the numbers should be |
//! | [`report`] | the Markdown page |
//! | [`progress`] | how far along it is |

pub mod counted;
pub mod effort;
pub mod goals;
pub mod gpu;
pub mod model;
pub mod parts;
pub mod progress;
pub mod report;
pub mod result;
pub mod store;

/// The commit that this was built from, or `unknown`.
pub const COMMIT: &str = env!("PROOF_COMMIT");

/// The recorded trajectories, by the names of their files.
pub static VECTORS: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/vectors.rs"));
