//! The device of the tests, which notes what it is asked for and may run out of memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lora_pro_core::Error;
use lora_pro_cuda::device::Device;
use lora_pro_cuda::hooked::{Call, Hook, Hooked, Next};
use lora_pro_cuda_emulator::{Checks, Emulator, gpu};

pub type Counting = Hooked<Notes>;

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Kernels, in their order.
    pub launches: Vec<&'static str>,
    /// Everything else that takes time, in its order.
    pub others: Vec<&'static str>,
}

pub struct Notes {
    /// None on a GPU.
    emulator: Option<Arc<Emulator>>,
    asked: Mutex<Asked>,
    /// How many allocations are left before memory runs out.
    left: AtomicUsize,
    /// Bytes.
    in_use: AtomicUsize,
}

/// With threads in the order of this number.
pub fn counting(order: i32) -> Arc<Counting> {
    on(Checks::Off, order)
}

/// With the compiler's checks at every access.
pub fn checked(order: i32) -> Arc<Counting> {
    on(Checks::On, order)
}

fn on(checks: Checks, order: i32) -> Arc<Counting> {
    let gpu = gpu().unwrap_or_else(|error| panic!("{error}"));
    let emulator = gpu.is_none().then(|| {
        let emulator = match checks {
            Checks::On => Emulator::checked(),
            Checks::Off | Checks::Hasty => Emulator::new(),
        };
        let emulator = emulator.unwrap_or_else(|error| panic!("{error}"));
        Arc::new(emulator.with_order(order))
    });
    let emulated = || emulator.clone().expect("one of the two") as Arc<dyn Device>;
    let device = gpu.unwrap_or_else(emulated);
    let notes = Notes {
        emulator: emulator.clone(),
        asked: Mutex::default(),
        left: AtomicUsize::new(usize::MAX),
        in_use: AtomicUsize::new(0),
    };
    Arc::new(Hooked::new(device, notes))
}

impl Notes {
    /// Says that streams are being captured, or no longer: for the emulator, which does at once what
    /// others record.
    pub fn set_capturing(&self, capturing: bool) {
        let emulator = self.emulator.as_ref();
        emulator
            .expect("a GPU has graphs of its own")
            .set_capturing(capturing);
    }

    /// Bytes that are allocated now.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Lets memory run out after so many allocations.
    pub fn leave(&self, allocations: usize) {
        self.left.store(allocations, Ordering::Relaxed);
    }

    /// What was asked for since the last call of this.
    pub fn asked(&self) -> Asked {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }
}

impl Hook for Notes {
    fn before(&self, call: Call<'_>) -> Result<Next, Error> {
        let mut asked = self.asked.lock().expect("no panic");
        asked.others.push(match call {
            Call::Launch(kernel, ..) => {
                asked.launches.push(kernel);
                return Ok(Next::Call);
            }
            Call::Allocate(_) => "allocate",
            Call::Free(_) => "free",
            Call::Fill => "fill",
            Call::Write => "write",
            Call::Read => "read",
            Call::Copy => "copy",
            Call::Synchronize => "synchronize",
        });
        if let Call::Free(bytes) = call {
            self.in_use.fetch_sub(bytes, Ordering::Relaxed);
        }
        if let Call::Allocate(bytes) = call {
            let left = self.left.load(Ordering::Relaxed).checked_sub(1);
            let left = left.ok_or_else(|| Error::OutOfMemory {
                backend: "cuda".into(),
                reason: "out of memory".into(),
            })?;
            self.left.store(left, Ordering::Relaxed);
            self.in_use.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(Next::Call)
    }
}
