//! LoRA-Pro on NVIDIA GPUs: core's contract with kernels of our own, through cudarc.
//!
//! [`CudaBackend`] steps tensors in device memory where they are, on the caller's stream;
//! [`HostTensors`] copies host tensors over and back. Without a driver or a device both are an
//! error, never a panic.
//!
//! How it is built, from the outside in:
//!
//! | module | what |
//! |---|---|
//! | `backend`, `staged` | the contract, for tensors on the device and on the host |
//! | `session`, `dial` | what stays on the device from step to step; what a replayed graph may change |
//! | `describe`, `model` | from slots and tensors to what the kernels read |
//! | `plan` | the launches of a step |
//! | `memory`, `views`, `snapshot`, `refusal` | state, borrowed tensors, the way back, errors |
//! | [`device`], [`hooked`] | what is asked of a device; one whose calls are seen before they are made |
//! | [`driver`], `image` | NVIDIA's driver, and the code that is loaded |
//! | `kernels/` | the kernels; `kernels/all.cu` names them all |
//!
//! The kernels' common words are in `kernels/model.cuh`. A step is told in the book's chapter "The
//! CUDA backend".

mod backend;
mod describe;
pub mod device;
mod dial;
pub mod driver;
pub mod hooked;
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
pub use dial::Dial;
pub use driver::Driver;
pub use memory::Block;
#[doc(hidden)]
pub use model::sizes;
pub use staged::HostTensors;

/// The backend's name.
pub const NAME: &str = "cuda";

/// The largest rank: tiles of so many rows fit into the shared memory of every device.
pub const MAX_RANK: usize = 256;
