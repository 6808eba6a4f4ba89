//! Marks in a stream.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUevent, CUevent_flags, CUresult, CUstream};
use lora_pro_core::Error;

use super::context::Context;
use super::failure::check;
use super::library;

/// A mark that a stream passes.
pub(super) struct Event {
    raw: CUevent,
    context: Arc<Context>,
}

// SAFETY: an event may be used from any thread, in its context.
unsafe impl Send for Event {}

impl Event {
    /// One that is waited for, or one that tells the time.
    pub(super) fn new(context: &Arc<Context>, timed: bool) -> Result<Self, Error> {
        let flags = if timed {
            CUevent_flags::CU_EVENT_DEFAULT
        } else {
            CUevent_flags::CU_EVENT_DISABLE_TIMING
        };
        let _entered = context.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is there for the call.
        let result = unsafe { sys::cuEventCreate(&mut raw, flags as u32) };
        check(result, "creating an event")?;
        Ok(Event {
            raw,
            context: context.clone(),
        })
    }

    /// Puts it behind what is in the stream.
    pub(super) fn record(&self, stream: u64) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        // SAFETY: the event is alive, and the stream is one of its context.
        let result = unsafe { sys::cuEventRecord(self.raw, stream as CUstream) };
        check(result, "marking a stream")
    }

    /// Waits until the stream has passed it; not at all where it was never recorded.
    pub(super) fn wait(&self) -> Result<(), Error> {
        let _entered = self.context.enter_relaxed()?;
        // SAFETY: the event is alive.
        check(unsafe { sys::cuEventSynchronize(self.raw) }, "waiting")
    }

    /// Milliseconds from another mark to this one, both passed; nothing where the driver has no
    /// such function.
    pub(super) fn since(&self, start: &Event) -> Result<Option<f64>, Error> {
        type Elapsed = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> CUresult;
        // cudarc knows the second name alone, which older drivers lack.
        let names = ["cuEventElapsedTime_v2", "cuEventElapsedTime"];
        let Some(function) = names.iter().find_map(|name| library::function(name)) else {
            return Ok(None);
        };
        // SAFETY: both names stand for a function of this type.
        let elapsed = unsafe { std::mem::transmute::<unsafe extern "C" fn(), Elapsed>(function) };
        let _entered = self.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: both events are alive; `milliseconds` is there for the call.
        let result = unsafe { elapsed(&mut milliseconds, start.raw, self.raw) };
        check(result, "taking the time")?;
        Ok(Some(f64::from(milliseconds)))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(_entered) = self.context.enter() {
            // SAFETY: the event is alive, and this was its last handle.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}
