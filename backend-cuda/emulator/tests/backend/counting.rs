//! The test device, noting what it is asked for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use lora_pro_core::Error;
use lora_pro_cuda::device::{About, Device, Launch};
use lora_pro_cuda_emulator::Emulator;

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Kernels, in their order.
    pub launches: Vec<&'static str>,
    /// Everything else that takes time, in its order.
    pub others: Vec<&'static str>,
}

pub struct Counting {
    pub emulator: Emulator,
    asked: Mutex<Asked>,
    /// How many allocations are left before memory runs out.
    left: AtomicUsize,
}

impl Counting {
    /// With threads in the order of this number.
    pub fn new(order: i32) -> Arc<Self> {
        Self::on(Emulator::new(), order)
    }

    /// With the compiler's checks at every access.
    pub fn checked(order: i32) -> Arc<Self> {
        Self::on(Emulator::checked(), order)
    }

    fn on(device: Result<Emulator, Error>, order: i32) -> Arc<Self> {
        let device = device.unwrap_or_else(|error| panic!("{error}"));
        Arc::new(Counting {
            emulator: device.with_order(order),
            asked: Mutex::default(),
            left: AtomicUsize::new(usize::MAX),
        })
    }

    /// Lets memory run out after so many allocations.
    pub fn leave(&self, allocations: usize) {
        self.left.store(allocations, Ordering::Relaxed);
    }

    /// What was asked for since somebody asked last.
    pub fn asked(&self) -> Asked {
        std::mem::take(&mut self.notes())
    }

    fn notes(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().expect("nobody panics with it")
    }

    fn note(&self, what: &'static str) {
        self.notes().others.push(what);
    }
}

// SAFETY of all blocks: the caller's contract is the test device's.
impl Device for Counting {
    fn about(&self) -> About {
        self.emulator.about()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        self.note("allocate");
        let left = self.left.load(Ordering::Relaxed);
        let Some(left) = left.checked_sub(1) else {
            return Err(Error::backend("cuda", "out of memory"));
        };
        self.left.store(left, Ordering::Relaxed);
        self.emulator.allocate(bytes)
    }

    unsafe fn free(&self, at: u64, bytes: usize) {
        self.note("free");
        // SAFETY: as above.
        unsafe { self.emulator.free(at, bytes) };
    }

    unsafe fn fill(&self, stream: u64, at: u64, byte: u8, bytes: usize) -> Result<(), Error> {
        self.note("fill");
        // SAFETY: as above.
        unsafe { self.emulator.fill(stream, at, byte, bytes) }
    }

    unsafe fn write(&self, stream: u64, to: u64, bytes: &[u8]) -> Result<(), Error> {
        self.note("write");
        // SAFETY: as above.
        unsafe { self.emulator.write(stream, to, bytes) }
    }

    unsafe fn read(&self, stream: u64, from: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.note("read");
        // SAFETY: as above.
        unsafe { self.emulator.read(stream, from, bytes) }
    }

    unsafe fn copy(&self, stream: u64, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        self.note("copy");
        // SAFETY: as above.
        unsafe { self.emulator.copy(stream, from, to, bytes) }
    }

    unsafe fn launch(
        &self,
        stream: u64,
        kernel: &'static str,
        grid: u32,
        shared: u32,
        argument: &Launch,
    ) -> Result<(), Error> {
        self.notes().launches.push(kernel);
        // SAFETY: as above.
        unsafe { self.emulator.launch(stream, kernel, grid, shared, argument) }
    }

    fn synchronize(&self, stream: u64) -> Result<(), Error> {
        self.note("synchronize");
        self.emulator.synchronize(stream)
    }

    fn is_capturing(&self, stream: u64) -> Result<bool, Error> {
        self.emulator.is_capturing(stream)
    }
}
