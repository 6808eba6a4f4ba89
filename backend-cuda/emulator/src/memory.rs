//! Device memory that notices writes outside of it.

use std::collections::BTreeMap;
use std::ptr;

/// What CUDA aligns allocations to.
const ALIGNMENT: usize = 256;
/// What memory is mapped in.
const PAGE: usize = 4096;
/// So many bytes before and behind an allocation may not be touched, besides its guard bytes.
const FENCE: usize = 1 << 20;
/// NaN in every float type; what fresh memory holds, and what is around it.
const GARBAGE: u8 = 0xFF;
/// To compare guard bytes with, all at once.
const INTACT: [u8; PAGE] = [GARBAGE; PAGE];

/// All allocations, by address. Errors are texts, for the device to say what it was doing.
#[derive(Default)]
pub(crate) struct Memory {
    blocks: BTreeMap<u64, Block>,
}

impl Memory {
    pub(crate) fn allocate(&mut self, bytes: usize) -> Result<u64, String> {
        let block = Block::new(bytes)?;
        let at = block.at();
        self.blocks.insert(at, block);
        Ok(at)
    }

    /// Gives memory back; an error where it is not what was allocated, or its guards are broken.
    pub(crate) fn free(&mut self, at: u64, bytes: usize) -> Result<(), String> {
        let block = self.blocks.remove(&at);
        match block.filter(|block| block.bytes == bytes) {
            Some(mut block) => block.check(),
            None => Err(format!(
                "no {bytes} bytes at {at:#x} are allocated, to be freed"
            )),
        }
    }

    /// Whether all these bytes belong to one allocation.
    pub(crate) fn owns(&self, at: u64, bytes: usize) -> Result<(), String> {
        let before = self.blocks.range(..=at).next_back();
        let inside = before.is_some_and(|(start, block)| {
            let from = (at - start) as usize;
            from <= block.bytes && bytes <= block.bytes - from
        });
        if inside || bytes == 0 {
            return Ok(());
        }
        Err(format!(
            "{bytes} bytes at {at:#x} are not all memory of the device"
        ))
    }

    /// Whether the bytes around every allocation are intact. Damage is reported once.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.blocks.values_mut().try_for_each(Block::check)
    }

    pub(crate) fn in_use(&self) -> usize {
        self.blocks.values().map(|block| block.bytes).sum()
    }
}

/// One allocation. It lies at the end of pages of its own, between fences.
struct Block {
    pages: *mut u8,
    /// Of the pages that may be touched.
    len: usize,
    bytes: usize,
}

// SAFETY: a block owns its pages, and does nothing with them that depends on the thread.
unsafe impl Send for Block {}

impl Block {
    fn new(bytes: usize) -> Result<Self, String> {
        let refused = || format!("no memory for {bytes} bytes");
        let len = bytes
            .checked_next_multiple_of(PAGE)
            .filter(|&len| len > 0)
            .ok_or_else(refused)?;
        let all = len.checked_add(2 * FENCE).ok_or_else(refused)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new pages at an address that the system chooses.
        let start = unsafe { libc::mmap(ptr::null_mut(), all, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(refused());
        }
        let pages = start.cast::<u8>().wrapping_add(FENCE);
        let block = Block { pages, len, bytes };
        // SAFETY: these pages lie within those that were just mapped.
        if unsafe { libc::mprotect(pages.cast(), len, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(refused());
        }
        // SAFETY: so many bytes may be written now.
        unsafe { pages.write_bytes(GARBAGE, len) };
        Ok(block)
    }

    /// Where the allocation starts in the pages.
    fn offset(&self) -> usize {
        self.len - self.bytes.next_multiple_of(ALIGNMENT)
    }

    fn at(&self) -> u64 {
        self.pages.wrapping_add(self.offset()) as u64
    }

    fn check(&mut self) -> Result<(), String> {
        let (start, end, at) = (self.offset(), self.offset() + self.bytes, self.at());
        for guard in [0..start, end..self.len] {
            // SAFETY: pages of our own; what kernels write is not here, or is an error to be found.
            let pages =
                unsafe { std::slice::from_raw_parts_mut(self.pages.add(guard.start), guard.len()) };
            if *pages == INTACT[..pages.len()] {
                continue;
            }
            let found = pages.iter().take_while(|&&byte| byte == GARBAGE).count();
            pages.fill(GARBAGE);
            let byte = (guard.start + found) as isize - start as isize;
            let bytes = self.bytes;
            return Err(format!(
                "device memory overrun: byte {byte} of the {bytes} at {at:#x} was written"
            ));
        }
        Ok(())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` has mapped.
        unsafe { libc::munmap(self.pages.wrapping_sub(FENCE).cast(), self.len + 2 * FENCE) };
    }
}
