//! LoRA-Pro on NVIDIA GPUs: core's contract with kernels of our own, through cudarc.

mod backend;
mod describe;
pub mod device;
pub mod driver;
mod image;
mod memory;
mod model;
mod plan;
mod refusal;
mod session;
mod snapshot;
mod staged;
mod views;

pub use backend::{CudaBackend, Options};
pub use driver::Driver;
#[doc(hidden)]
pub use model::sizes;
pub use staged::HostTensors;

/// The backend's name.
pub const NAME: &str = "cuda";

/// The largest rank: three tiles of so many rows fit into the shared memory of every device.
pub const MAX_RANK: usize = 256;
