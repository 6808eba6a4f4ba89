//! Scratch memory.

/// Deals out scratch memory: addresses from `base` on, and in the end how much was needed.
pub(crate) struct Arena {
    base: u64,
    used: usize,
}

impl Arena {
    pub(crate) fn new(base: u64) -> Self {
        Arena { base, used: 0 }
    }

    /// Memory for so many numbers of so many bytes.
    pub(super) fn take(&mut self, count: usize, size: usize) -> u64 {
        let at = self.base + self.used as u64;
        self.used += (count * size).next_multiple_of(256);
        at
    }

    /// Bytes that were dealt out.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}
