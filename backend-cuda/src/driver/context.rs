//! The device's primary context: the one that all code in the process shares, so that
//! their memory and their streams are ours too.

use std::ffi::c_int;
use std::marker::PhantomData;

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute, CUstreamCaptureMode};
use lora_pro_core::Error;

use super::failure::{check, failure};
use super::library;

/// A device with its primary context.
pub(super) struct Context {
    pub(super) ordinal: usize,
    pub(super) device: CUdevice,
    raw: CUcontext,
}

// SAFETY: a context may be used from any thread, where it is made current first.
unsafe impl Send for Context {}
// SAFETY: the same.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn new(ordinal: usize) -> Result<Self, Error> {
        let count = library::count()?;
        let number = c_int::try_from(ordinal).ok().filter(|_| ordinal < count);
        let number = number.ok_or_else(|| failure(missing(ordinal, count)))?;
        let doing = format!("opening device {ordinal}");
        let mut device = 0;
        // SAFETY: `device` is there for the call.
        check(unsafe { sys::cuDeviceGet(&mut device, number) }, &doing)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the device is one of the driver's; `raw` is there for the call.
        let result = unsafe { sys::cuDevicePrimaryCtxRetain(&mut raw, device) };
        check(result, &doing)?;
        Ok(Context {
            ordinal,
            device,
            raw,
        })
    }

    /// Makes it the calling thread's, until what comes back is dropped.
    pub(super) fn enter(&self) -> Result<Entered, Error> {
        // SAFETY: the context is alive as long as `self`.
        let result = unsafe { sys::cuCtxPushCurrent_v2(self.raw) };
        check(result, "making the device current")?;
        Ok(Entered(PhantomData))
    }

    /// The same, for calls that a graph capture anywhere in the process would forbid. They are
    /// harmless: nothing of what they do belongs into a graph.
    pub(super) fn enter_relaxed(&self) -> Result<Relaxed, Error> {
        let entered = self.enter()?;
        let mut mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: `mode` is there for the call.
        let result = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) };
        check(result, "relaxing the capture mode")?;
        Ok(Relaxed {
            before: mode,
            _entered: entered,
        })
    }

    pub(super) fn attribute(&self, attribute: CUdevice_attribute) -> Result<i32, Error> {
        let mut value = 0;
        // SAFETY: `value` is there for the call, and the device is one of the driver's.
        let result = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, self.device) };
        check(result, "asking for a property of the device")?;
        Ok(value)
    }

    /// Major and minor compute capability.
    pub(super) fn capability(&self) -> Result<(i32, i32), Error> {
        use CUdevice_attribute as Attribute;
        Ok((
            self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once. A failure here means that the driver has gone already.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// This thread inside of a context. What was current before is so again afterwards: the caller may
/// work with another device.
pub(super) struct Entered(PhantomData<*const ()>);

impl Drop for Entered {
    fn drop(&mut self) {
        let mut left = std::ptr::null_mut();
        // SAFETY: `left` is there for the call; what is popped is what `enter` pushed.
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut left) };
    }
}

/// This thread inside of a context, and out of the way of captures.
pub(super) struct Relaxed {
    before: CUstreamCaptureMode,
    _entered: Entered,
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // SAFETY: the mode that this thread had is there for the call.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut self.before) };
    }
}

fn missing(ordinal: usize, count: usize) -> String {
    match count {
        1 => format!("there is no device {ordinal}: this machine has one, device 0"),
        _ => format!(
            "there is no device {ordinal}: this machine has {count}, numbered 0 to {}",
            count - 1
        ),
    }
}
