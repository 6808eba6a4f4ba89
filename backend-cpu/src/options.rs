//! How a backend is set up.

use crate::simd_level::SimdLevel;

/// How a backend is set up; the default is right for everything but tests and benchmarks.
///
/// ```
/// use lora_pro_cpu::{CpuBackend, CpuOptions};
/// let backend = CpuBackend::with(CpuOptions::default().threads(1))?;
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CpuOptions {
    /// Threads of a pool of its own; `None` for the rayon pool that the caller is in, or the
    /// global one.
    pub threads: Option<usize>,
    /// The instruction set; `None` for the fastest that the machine has.
    pub simd_level: Option<SimdLevel>,
    /// Fill all scratch memory with NaN before each step: a test then sees what is read before it
    /// is written.
    #[doc(hidden)]
    pub poison: bool,
}

impl CpuOptions {
    /// With other [`CpuOptions::threads`].
    pub fn threads(mut self, threads: impl Into<Option<usize>>) -> Self {
        self.threads = threads.into();
        self
    }

    /// With another [`CpuOptions::simd_level`].
    pub fn simd_level(mut self, level: impl Into<Option<SimdLevel>>) -> Self {
        self.simd_level = level.into();
        self
    }

    /// With or without poisoned scratch memory.
    #[doc(hidden)]
    pub fn poison(mut self, poison: bool) -> Self {
        self.poison = poison;
        self
    }
}
