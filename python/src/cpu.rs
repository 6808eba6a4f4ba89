//! The CPU backend as a Python process needs it.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lora_pro::backend::{self, Control, Slots, StepIo};
use lora_pro::cpu::CpuOptions;
use lora_pro::{Backend, CpuBackend, Error, Manifest, StepReport};

/// The CPU backend with a thread pool of its own, of as many threads as `threads` says at each step:
/// torch's number can change at any time.
///
/// A process that was forked has none of its parent's threads, and a pool without threads waits for
/// ever. So a child makes a pool of its own. State lies in ordinary memory, which a fork copies.
pub struct TorchCpu {
    threads: Arc<AtomicUsize>,
    backend: CpuBackend,
    made_for: (u32, usize),
}

impl TorchCpu {
    /// A backend of one thread until `threads` says more.
    pub fn new(threads: Arc<AtomicUsize>) -> Result<Self, Error> {
        Ok(TorchCpu {
            threads,
            backend: with_threads(1)?,
            made_for: (process::id(), 1),
        })
    }

    /// Makes the backend anew where the number of threads or the process is another one.
    fn renew(&mut self) -> Result<(), Error> {
        let process = process::id();
        let wanted = (process, self.threads.load(Ordering::Relaxed).max(1));
        if self.made_for == wanted {
            return Ok(());
        }
        let old = std::mem::replace(&mut self.backend, with_threads(wanted.1)?);
        if self.made_for.0 != process {
            // Dropping the pool would wake threads that do not exist here.
            std::mem::forget(old);
        }
        self.made_for = wanted;
        Ok(())
    }
}

fn with_threads(count: usize) -> Result<CpuBackend, Error> {
    CpuBackend::with(CpuOptions::default().threads(count))
}

impl Backend for TorchCpu {
    fn manifest(&self) -> Manifest {
        self.backend.manifest()
    }

    backend::forward_memory!(backend);

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        self.renew()?;
        self.backend.step(slots, io, control)
    }
}
