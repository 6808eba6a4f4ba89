//! A test device for the CUDA backend: its kernels, compiled by a C++ compiler and run on the CPU.
//!
//! A thread of a block is a fiber; blocks run in turn, on the thread that launches. That is slow,
//! and strict where a GPU is not: memory starts as NaN, a barrier that one thread misses is an
//! error and so is an access outside of memory, and threads run in whatever order is asked for.
//! What it has no idea of: caches and the order of memory accesses between running threads, the
//! asynchronous copies of newer GPUs, time.
//!
//! ```no_run
//! use lora_pro_cuda::device::Device;
//!
//! let device = lora_pro_cuda_emulator::Emulator::new()?.with_order(1);
//! let memory = device.allocate(1024)?;
//! # Ok::<(), lora_pro_core::Error>(())
//! ```
//!
//! | module | what |
//! |---|---|
//! | `cpp/` | CUDA's names in C++, fibers, and the launch of a grid |
//! | [`compile`] | from kernels to a library, once |
//! | `memory` | device memory that notices writes outside of it |
//! | `device` | the [`Device`](lora_pro_cuda::device::Device) itself |
//! | `test_device` | the device of tests: this one, or a GPU |
//! | [`mutants`] | kernels with one thing wrong, for tests of the tests |

pub mod compile;
mod device;
mod memory;
pub mod mutants;
mod test_device;

pub use compile::{Checks, build};
pub use device::{Emulator, ORDER};
pub use test_device::{VARIABLE, gpu, test_device};

use lora_pro_core::Error;

fn failed(reason: impl Into<String>) -> Error {
    let reason: String = reason.into();
    Error::backend("cuda", reason)
}
