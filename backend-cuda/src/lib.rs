//! LoRA-Pro on NVIDIA GPUs: core's contract with kernels of our own, through cudarc.
//!
//! [`CudaBackend`] steps tensors in device memory where they are, on the caller's stream;
//! [`StagedCudaBackend`] copies host tensors over and back. Without a driver or a device both are an
//! error, never a panic.
//!
//! How it is built, from the outside in:
//!
//! | module | what |
//! |---|---|
//! | `backend`, `staged` | the contract, for tensors on the device and on the host |
//! | `device_state` | what stays on the device from step to step |
//! | `graph_parameters` | what a replayed graph may change |
//! | `descriptors`, `model` | from slots and tensors to what the kernels read |
//! | `plan` | the launches of a step |
//! | `constants` | the numbers that kernels and host share |
//! | `device_buffer`, `state_buffer`, `views` | memory, state tensors in it, borrowed tensors |
//! | `rejection`, `snapshot` | errors that name an entry; the way back from an overflow |
//! | [`device`], [`hooked`] | what is asked of a device; one whose calls are seen before they are made |
//! | [`driver`], `image` | NVIDIA's driver, and the code that is loaded |
//! | `kernels/` | the kernels; `kernels/all.cu` names them all |
//!
//! The kernels' structures are in `kernels/model.cuh`. The book's chapter "The CUDA backend" follows a
//! step through them.

mod backend;
mod constants;
mod descriptors;
pub mod device;
mod device_buffer;
mod device_state;
pub mod driver;
mod graph_parameters;
pub mod hooked;
mod image;
mod model;
mod plan;
mod rejection;
mod snapshot;
mod staged;
mod state_buffer;
mod views;

pub use backend::{CudaBackend, Options};
pub use device_buffer::DeviceBuffer;
pub use driver::Driver;
pub use graph_parameters::GraphParameters;
#[doc(hidden)]
pub use model::layout;
pub use staged::StagedCudaBackend;

/// The backend's name.
pub const NAME: &str = "cuda";

/// The largest rank: tiles of so many rows fit into the shared memory of every device.
pub const MAX_RANK: usize = constants::MAX_RANK;
