//! A device whose calls are seen before they are made: to count, to refuse, to leave out.

use std::sync::Arc;

use lora_pro_core::Error;

use crate::device::{Device, DeviceInfo, Launch};

/// A call to a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call<'c> {
    /// New memory of so many bytes.
    Allocate(usize),
    /// So many bytes given back.
    Free(usize),
    /// Bytes filled.
    Fill,
    /// A copy from the host.
    Write,
    /// A copy to the host.
    Read,
    /// A copy on the device.
    Copy,
    /// A kernel, its blocks, its bytes of dynamic shared memory and its argument.
    Launch(&'static str, u32, u32, &'c Launch),
    /// Waiting for a stream.
    Synchronize,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The device is called.
    Call,
    /// A launch is left out; every other call is made.
    LeaveOut,
}

/// What is done before a device is called.
pub trait Hook: Send + Sync {
    /// An error is the answer to the call, and the device is not called. Memory is given back in any
    /// case.
    ///
    /// # Errors
    /// Whatever the caller is to see.
    fn before(&self, call: Call<'_>) -> Result<Next, Error>;
}

/// A device with a hook.
pub struct Hooked<H> {
    device: Arc<dyn Device>,
    hook: H,
}

impl<H: Hook> Hooked<H> {
    /// Calls `hook` before `device`.
    pub fn new(device: Arc<dyn Device>, hook: H) -> Self {
        Hooked { device, hook }
    }

    /// What is called first.
    pub fn hook(&self) -> &H {
        &self.hook
    }
}

impl<H: Hook> Device for Hooked<H> {
    fn info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        self.hook.before(Call::Allocate(bytes))?;
        self.device.allocate(bytes)
    }

    unsafe fn free(&self, at: u64, bytes: usize) {
        // There is no answer that an error could be.
        let _ = self.hook.before(Call::Free(bytes));
        // SAFETY: the caller's promise.
        unsafe { self.device.free(at, bytes) };
    }

    unsafe fn fill(&self, stream: u64, at: u64, byte: u8, bytes: usize) -> Result<(), Error> {
        self.hook.before(Call::Fill)?;
        // SAFETY: the caller's promise.
        unsafe { self.device.fill(stream, at, byte, bytes) }
    }

    unsafe fn write(&self, stream: u64, to: u64, bytes: &[u8]) -> Result<(), Error> {
        self.hook.before(Call::Write)?;
        // SAFETY: the caller's promise.
        unsafe { self.device.write(stream, to, bytes) }
    }

    unsafe fn read(&self, stream: u64, from: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.hook.before(Call::Read)?;
        // SAFETY: the caller's promise.
        unsafe { self.device.read(stream, from, bytes) }
    }

    unsafe fn copy(&self, stream: u64, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        self.hook.before(Call::Copy)?;
        // SAFETY: the caller's promise.
        unsafe { self.device.copy(stream, from, to, bytes) }
    }

    unsafe fn launch(
        &self,
        stream: u64,
        kernel: &'static str,
        grid: u32,
        shared: u32,
        argument: &Launch,
    ) -> Result<(), Error> {
        match self
            .hook
            .before(Call::Launch(kernel, grid, shared, argument))?
        {
            // SAFETY: the caller's promise.
            Next::Call => unsafe { self.device.launch(stream, kernel, grid, shared, argument) },
            Next::LeaveOut => Ok(()),
        }
    }

    fn synchronize(&self, stream: u64) -> Result<(), Error> {
        self.hook.before(Call::Synchronize)?;
        self.device.synchronize(stream)
    }

    fn is_capturing(&self, stream: u64) -> Result<bool, Error> {
        self.device.is_capturing(stream)
    }
}
