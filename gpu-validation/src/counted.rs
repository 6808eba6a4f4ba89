//! A device that counts what is asked of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lora_pro_core::Error;
use lora_pro_cuda::device::{About, Device, Launch};

/// What was asked for so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes that are allocated now.
    pub in_use: usize,
    /// Allocations.
    pub allocations: u64,
    /// Launches by kernel.
    pub launches: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// All launches.
    pub fn all_launches(&self) -> u64 {
        self.launches.values().sum()
    }
}

/// Passes everything on.
pub struct Counted {
    inner: Arc<dyn Device>,
    counts: Mutex<Counts>,
}

impl Counted {
    /// Nothing so far.
    pub fn new(inner: Arc<dyn Device>) -> Self {
        Counted {
            inner,
            counts: Mutex::default(),
        }
    }

    /// What was asked for so far.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// Numbers are whole at every moment: another thread's panic has not spoiled them.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Counted {
    fn about(&self) -> About {
        self.inner.about()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        let at = self.inner.allocate(bytes)?;
        let mut counts = self.lock();
        counts.in_use += bytes;
        counts.allocations += 1;
        Ok(at)
    }

    unsafe fn free(&self, at: u64, bytes: usize) {
        self.lock().in_use -= bytes;
        // SAFETY: the caller's promise.
        unsafe { self.inner.free(at, bytes) };
    }

    unsafe fn fill(&self, stream: u64, at: u64, byte: u8, bytes: usize) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.fill(stream, at, byte, bytes) }
    }

    unsafe fn write(&self, stream: u64, to: u64, bytes: &[u8]) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.write(stream, to, bytes) }
    }

    unsafe fn read(&self, stream: u64, from: u64, bytes: &mut [u8]) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.read(stream, from, bytes) }
    }

    unsafe fn copy(&self, stream: u64, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.inner.copy(stream, from, to, bytes) }
    }

    unsafe fn launch(
        &self,
        stream: u64,
        kernel: &'static str,
        grid: u32,
        shared: u32,
        argument: &Launch,
    ) -> Result<(), Error> {
        *self.lock().launches.entry(kernel).or_default() += 1;
        // SAFETY: the caller's promise.
        unsafe { self.inner.launch(stream, kernel, grid, shared, argument) }
    }

    fn synchronize(&self, stream: u64) -> Result<(), Error> {
        self.inner.synchronize(stream)
    }

    fn is_capturing(&self, stream: u64) -> Result<bool, Error> {
        self.inner.is_capturing(stream)
    }
}
