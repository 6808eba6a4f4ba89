//! The way from the host to the device. The driver promises to copy without waiting, and to say when
//! it is done, for page-locked memory alone: what is written passes through a ring of such pieces,
//! so that the source is free at once, whatever memory it is in.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUstream};
use lora_pro_core::Error;

use super::context::Context;
use super::event::Event;
use super::failure::check;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// Pieces in the ring: so many copies may be under way before a new one waits for the oldest.
const PIECES: usize = 64;

pub(super) struct Staging {
    ring: Mutex<Ring>,
    context: Arc<Context>,
}

struct Ring {
    memory: *mut u8,
    /// For every piece, the end of its last copy.
    copied: Vec<Event>,
    next: usize,
}

// SAFETY: the memory belongs to the ring alone.
unsafe impl Send for Ring {}

impl Staging {
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, Error> {
        let copied = (0..PIECES)
            .map(|_| Event::new(context, false))
            .collect::<Result<_, _>>()?;
        let _relaxed = context.enter_relaxed()?;
        let mut memory = std::ptr::null_mut();
        // SAFETY: `memory` is there for the call.
        let result = unsafe { sys::cuMemHostAlloc(&mut memory, PIECE * PIECES, 0) };
        check(
            result,
            &format!("taking {} bytes of page-locked memory", PIECE * PIECES),
        )?;
        Ok(Staging {
            ring: Mutex::new(Ring {
                memory: memory.cast(),
                copied,
                next: 0,
            }),
            context: context.clone(),
        })
    }

    /// # Safety
    /// As many bytes from `to` are writable memory of the device.
    pub(super) unsafe fn write(&self, stream: u64, to: u64, bytes: &[u8]) -> Result<(), Error> {
        // A poisoned lock is as good as any: a piece is taken before anything can fail.
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let _relaxed = self.context.enter_relaxed()?;
        let mut to = to;
        for part in bytes.chunks(PIECE) {
            // SAFETY: the caller's promise, for a part.
            unsafe { ring.write(stream, to, part) }?;
            to += part.len() as u64;
        }
        Ok(())
    }
}

impl Ring {
    /// # Safety
    /// As [`Staging::write`], for at most one piece.
    unsafe fn write(&mut self, stream: u64, to: u64, part: &[u8]) -> Result<(), Error> {
        let index = self.next;
        self.next = (index + 1) % PIECES;
        self.copied[index].wait()?;
        // SAFETY: `index` is within the ring.
        let piece = unsafe { self.memory.add(index * PIECE) };
        // SAFETY: the piece holds the part, and no copy reads it any more.
        unsafe { piece.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
        // SAFETY: the caller's promise; the piece stays as it is until its event has passed.
        let result =
            unsafe { sys::cuMemcpyHtoDAsync_v2(to, piece.cast(), part.len(), stream as CUstream) };
        check(
            result,
            &format!("copying {} bytes to the device", part.len()),
        )?;
        self.copied[index].record(stream)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let ring = self.ring.get_mut().unwrap_or_else(PoisonError::into_inner);
        for event in &ring.copied {
            let _ = event.wait();
        }
        if let Ok(_relaxed) = self.context.enter_relaxed() {
            // SAFETY: no copy reads it any more, and this was its last handle.
            let _ = unsafe { sys::cuMemFreeHost(ring.memory.cast()) };
        }
    }
}
