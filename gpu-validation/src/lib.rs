//! Validates and measures the CUDA backend on a GPU.
//!
//! | module | what |
//! |---|---|
//! | [`gpu`], [`counted`] | what a GPU must be able to do; one that counts what is asked of it |
//! | [`model`] | adapters whose tensors are in device memory, and what steps them |
//! | [`effort`] | how much of everything |
//! | [`ctx`], [`suites`] | what suites share; what is validated and measured, one file each |
//! | [`result`](mod@result), [`store`] | what a suite has found; results in files, and which of them still count |
//! | [`goals`] | what the numbers should be |
//! | [`report`] | all results, and the Markdown page |
//! | [`progress`] | how far along it is |

pub mod counted;
pub mod ctx;
pub mod effort;
pub mod goals;
pub mod gpu;
pub mod model;
pub mod progress;
pub mod report;
pub mod result;
pub mod store;
pub mod suites;

/// The commit that this was built from, or `unknown`.
pub const COMMIT: &str = env!("VALIDATED_COMMIT");
