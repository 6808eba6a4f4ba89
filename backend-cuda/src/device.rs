//! What the backend asks of a device. There are two: the driver's ([`crate::driver`]), and the
//! emulator that runs the same kernels on the CPU.

use bytemuck::{Pod, Zeroable};
use lora_pro_core::Error;

use crate::constants;

/// Threads of every block of every kernel.
pub const BLOCK: u32 = constants::BLOCK as u32;

/// The one argument of every kernel: `Launch` of `kernels/model.cuh`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Launch {
    /// Device address of the `Model`.
    pub model: u64,
    /// Device address of the tasks, one for each block.
    pub tasks: u64,
    /// What a kernel needs besides; its head says what.
    pub numbers: [f64; 4],
    /// The same, as integers.
    pub words: [u64; 2],
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ordinal: usize,
    /// Where its code came from: `cubin sm_90`, `PTX`, `NVRTC`.
    pub code: String,
}

/// Memory, copies and launches. Addresses and streams are as the driver has them, as integers;
/// stream 0 is the default stream. Everything is ordered by its stream.
pub trait Device: Send + Sync {
    /// What it is.
    fn info(&self) -> DeviceInfo;

    /// New memory, aligned to 256 bytes; what is in it is not said.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where there is not enough.
    fn allocate(&self, bytes: usize) -> Result<u64, Error>;

    /// Gives memory back, after all work that was launched before.
    ///
    /// # Safety
    /// `at` came from [`Device::allocate`] with as many bytes, is given back once, and nothing
    /// that is launched later uses it.
    unsafe fn free(&self, at: u64, bytes: usize);

    /// Fills memory with a byte.
    ///
    /// # Safety
    /// The bytes from `at` are writable memory of the device.
    unsafe fn fill(&self, stream: u64, at: u64, byte: u8, bytes: usize) -> Result<(), Error>;

    /// Copies from the host; `bytes` is free again when this returns.
    ///
    /// # Safety
    /// As many bytes from `to` are writable memory of the device.
    unsafe fn write(&self, stream: u64, to: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Copies to the host; waits for the stream.
    ///
    /// # Safety
    /// As many bytes from `from` are memory of the device.
    unsafe fn read(&self, stream: u64, from: u64, bytes: &mut [u8]) -> Result<(), Error>;

    /// Copies on the device.
    ///
    /// # Safety
    /// Both ranges are memory of the device and do not overlap; `to` is writable.
    unsafe fn copy(&self, stream: u64, from: u64, to: u64, bytes: usize) -> Result<(), Error>;

    /// Starts `grid` blocks of [`BLOCK`] threads with so many bytes of dynamic shared memory.
    ///
    /// # Errors
    /// [`Error::Backend`] for a kernel that there is not, or that the driver refuses.
    ///
    /// # Safety
    /// The kernel's head says what must be true of `argument`.
    unsafe fn launch(
        &self,
        stream: u64,
        kernel: &'static str,
        grid: u32,
        shared: u32,
        argument: &Launch,
    ) -> Result<(), Error>;

    /// Waits for everything that was launched on the stream.
    ///
    /// # Errors
    /// [`Error::Backend`] where something of it failed.
    fn synchronize(&self, stream: u64) -> Result<(), Error>;

    /// Whether the stream is being captured into a graph: nothing may wait then.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver does not say.
    fn is_capturing(&self, stream: u64) -> Result<bool, Error>;
}
