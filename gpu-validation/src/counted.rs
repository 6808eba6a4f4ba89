//! Counts what is asked of a device.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lora_pro_core::Error;
use lora_pro_cuda::hooked::{Call, Hook, Hooked, Next};

/// A device that counts.
pub type Counted = Hooked<Counter>;

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
#[derive(Debug, Default)]
pub struct Counter(Mutex<Counts>);

impl Counter {
    /// What was asked for so far.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// Numbers are whole at every moment: another thread's panic has not spoiled them.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hook for Counter {
    fn before(&self, call: Call<'_>) -> Result<Next, Error> {
        let mut counts = self.lock();
        match call {
            Call::Allocate(bytes) => {
                counts.in_use += bytes;
                counts.allocations += 1;
            }
            Call::Free(bytes) => counts.in_use -= bytes,
            Call::Launch(kernel, ..) => *counts.launches.entry(kernel).or_default() += 1,
            _ => {}
        }
        Ok(Next::Call)
    }
}
