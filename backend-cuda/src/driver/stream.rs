//! Streams of our own, for programs that come without one.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUstream, CUstream_flags};
use lora_pro_core::Error;

use super::Driver;
use super::context::Context;
use super::failure::check;

/// A stream that does not wait for the default stream. Dropping it waits for nothing: what was
/// launched runs to its end.
pub struct Stream {
    raw: u64,
    context: Arc<Context>,
}

impl Stream {
    /// What [`crate::device::Device`] takes.
    pub fn raw(&self) -> u64 {
        self.raw
    }
}

impl Driver {
    /// A new stream.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver has none to give.
    pub fn stream(&self) -> Result<Stream, Error> {
        let _entered = self.context.enter()?;
        let mut raw = std::ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: `raw` is there for the call.
        let result = unsafe { sys::cuStreamCreate(&mut raw, flags) };
        check(result, "creating a stream")?;
        Ok(Stream {
            raw: raw as u64,
            context: self.context.clone(),
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(_entered) = self.context.enter() {
            // SAFETY: the stream is alive, and this was its last handle.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw as CUstream) };
        }
    }
}
