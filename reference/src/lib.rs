//! The derivation of LoRA-Pro as code: f64, nalgebra, one function per equation and one per
//! algorithm.
//!
//! Nothing here is there for speed. Read the modules in this order:
//!
//! | module | what |
//! |---|---|
//! | [`factors`] | the adapter, its gradients, its Gram matrices |
//! | [`equivalent`] | the equivalent gradient E |
//! | [`closed_form`] | U, V and (dA, dB) |
//! | [`descent`] | the loss never rises |
//! | [`x`], [`direction`] | the three choices of X; (dA, dB) with the chosen one |
//! | [`eigen`], [`damping`] | inverses of Gram matrices |
//! | [`gap`] | how far E is from the full gradient |
//! | [`adamw`], [`state`] | Adam's recurrence; what each algorithm remembers |
//! | [`lora`], [`sgd`], [`efficient`], [`full`], [`factored`] | the algorithms, a function `step` each |
//! | [`update`] | from a direction to new factors, with [`clip`] and [`decay`] |
//! | [`step`] | one step of one adapter: the algorithm of its method |
//! | [`quirk`] | a rounding of the public code, to replay its trajectories |
//! | [`storage`], [`moments`], [`ReferenceBackend`] | the same behind core's contract |
//!
//! The mathematics is in `src/`, the contract in `src/contract/`. The rest of this page is the
//! derivation itself, the same text as in the book.
#![doc = ""]
#![doc = include_str!("../docs/derivation.md")]
#![forbid(unsafe_code)]

pub mod adamw;
pub mod clip;
pub mod closed_form;
mod contract;
pub mod damping;
pub mod decay;
pub mod descent;
pub mod direction;
pub mod efficient;
pub mod eigen;
pub mod equivalent;
pub mod factored;
pub mod factors;
pub mod full;
pub mod gap;
pub mod lora;
pub mod quirk;
pub mod sgd;
pub mod state;
pub mod step;
pub mod update;
pub mod x;

pub use contract::{ReferenceBackend, moments, storage};

/// The backend's name.
pub const NAME: &str = "reference";
