//! The reference with one thing wrong in it, to measure what checks see.
//!
//! A check that nothing can break proves nothing. A [`Fault`] replaces a piece of the reference's
//! source by another: what ports of this optimizer have had, or could well have. The build
//! script writes all of them into one copy of the reference, and a [`VariantBackend`] switches one
//! on.
//!
//! The reference itself is compiled as it stands and knows nothing of this. Where its text changes,
//! the edits that no longer apply are listed in [`LOST`], and a test fails.
//!
//! ```
//! use lora_pro_core::Backend;
//! use lora_pro_variants::{FAULTS, VariantBackend};
//! let fault = FAULTS.iter().find(|fault| fault.id == "sylvester-sides-swapped").unwrap();
//! assert_eq!(VariantBackend::new(fault.id).manifest().name, fault.id);
//! ```

mod active;
mod backend;
mod wrong;

pub use backend::VariantBackend;

use active::{active, without_fault};

/// One difference from the reference.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name, never used again for another.
    pub id: &'static str,
    /// What is wrong, and what a user would see of it.
    pub what: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/faults.rs"));
