//! Subjects with one thing wrong, to prove what the laws see.
//!
//! A law that nothing can break proves nothing. So the reference's step is written down once more
//! with each equation looked up in a table ([`Equations`]); unchanged it gives the reference's bits,
//! and a [`Bug`] replaces one entry. The bugs are those that ports of this optimizer have had, or
//! could well have.
//!
//! ```
//! use lora_pro_conformance::planted::bugs;
//! let bug = bugs().find(|bug| bug.id == "sylvester-sides-swapped").unwrap();
//! assert_eq!(bug.make().manifest().name, bug.id);
//! ```

use lora_pro_core::Backend;

mod adapter;
mod backend;
mod bugs;
mod equations;
mod moments;

pub use backend::PlantedBackend;
pub use bugs::bugs;
pub use equations::{Equations, Matrix, Tensors};

/// One difference from the reference.
#[derive(Clone, Copy)]
pub struct Bug {
    /// Its name, never used again for another.
    pub id: &'static str,
    /// What is wrong, and what a user would see of it.
    pub what: &'static str,
    /// Replaces one equation.
    pub plant: fn(&mut Equations),
}

impl Bug {
    /// A backend that has it.
    pub fn make(&self) -> Box<dyn Backend> {
        Box::new(PlantedBackend::new(self.id, self.plant))
    }
}
