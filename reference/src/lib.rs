//! The derivation of LoRA-Pro as code: f64, nalgebra, one function per equation.
//!
//! Nothing here is there for speed. Read the modules in this order:
//!
//! | module | what |
//! |---|---|
//! | [`factors`] | the adapter, its gradients, its Gram matrices |
//! | [`equivalent`] | the equivalent gradient E |
//! | [`closed_form`] | U, V and (dA, dB) |
//! | [`descent`] | the loss never rises |
//! | [`x`] | the three choices of X |
//! | [`eigen`], [`damping`] | inverses of Gram matrices |
//! | [`gap`] | how far E is from the full gradient |
//! | [`adamw`], [`sgd`], [`efficient`], [`full`], [`factored`] | the optimizers |
//! | [`decay`], [`clip`] | weight decay, gradient and update clips |
//! | [`step`] | one step of one adapter |
//! | [`storage`], [`ReferenceBackend`] | the same, behind core's contract |
//!
//! The rest of this page is the derivation itself, the same text as in the book.
#![doc = ""]
#![doc = include_str!("../../docs/chapters/derivation.md")]

pub mod adamw;
mod backend;
pub mod clip;
pub mod closed_form;
pub mod damping;
pub mod decay;
pub mod descent;
pub mod efficient;
pub mod eigen;
pub mod equivalent;
pub mod factored;
pub mod factors;
pub mod full;
pub mod gap;
pub mod sgd;
pub mod step;
pub mod storage;
pub mod x;

pub use backend::{NAME, ReferenceBackend};
