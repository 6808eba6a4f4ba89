//! LoRA-Pro on the CPU.

mod backend;
mod path;

pub use backend::{CpuBackend, NAME, Options};
pub use path::Path;
