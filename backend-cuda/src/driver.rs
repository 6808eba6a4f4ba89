//! The device of the NVIDIA driver. Its library is looked for at run time: without it the backend
//! builds and starts, and says that there is no device.
//!
//! The calls are cudarc's bindings, and not its safe layer, for four reasons. That layer owns its
//! streams and its memory, while this backend works on addresses and in streams that torch or candle
//! own. It makes its context current for good, while a caller that works with another device must find
//! its own again. It allocates in streams, and so a capture would take allocations into the graph. And
//! without the library, or with an older one that lacks a function, it panics, where this crate
//! promises an error.
//!
//! Everything happens in the device's primary context, in the stream that the caller names: that of
//! another library's tensors, for instance. The calling thread is left in the context in which it
//! was. Nothing waits but [`Device::read`], [`Device::synchronize`] and [`Device::free`], and
//! [`Device::write`] where more than 64 pieces of 64 KiB are under way already.
//!
//! | module | what |
//! |---|---|
//! | `library`, `context` | the driver's functions; the primary context |
//! | `loading`, `nvrtc` | the kernels, from an embedded image or compiled here |
//! | `staging`, `event` | copies from the host |
//! | `stream`, `graph`, `timing`, `facts` | what programs need that work without another library |
//! | `failure` | the driver's words |

mod context;
mod event;
mod facts;
mod failure;
mod graph;
mod library;
mod loading;
mod nvrtc;
mod staging;
mod stream;
mod timing;

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult, CUstream, CUstreamCaptureStatus};
use lora_pro_core::Error;

use crate::device::{BLOCK, Device, DeviceInfo, Launch};
use context::Context;
use failure::{check, failure};
use loading::Kernels;
use staging::Staging;

pub use graph::Graph;
pub use stream::Stream;
pub use timing::Elapsed;

/// A CUDA device with all kernels loaded.
pub struct Driver {
    kernels: Kernels,
    staging: Staging,
    context: Arc<Context>,
    info: DeviceInfo,
}

impl Driver {
    /// Opens a device, by its number among those that CUDA shows.
    ///
    /// # Errors
    /// [`Error::Backend`] without a driver, without this device, for a device before compute
    /// capability 8.0, and where the driver takes none of the code that there is.
    pub fn new(ordinal: usize) -> Result<Self, Error> {
        let context = Arc::new(Context::new(ordinal)?);
        let kernels = Kernels::load(&context)?;
        let info = DeviceInfo {
            name: facts::name(&context)?,
            ordinal,
            code: kernels.code.clone(),
        };
        Ok(Driver {
            staging: Staging::new(&context)?,
            kernels,
            context,
            info,
        })
    }

    /// How many devices there are: at least one.
    ///
    /// # Errors
    /// [`Error::Backend`] without a driver, and without a device.
    pub fn count() -> Result<usize, Error> {
        library::count()
    }

    /// What waits or leaves the device would spoil a capture: an error instead.
    fn not_captured(&self, stream: u64, what: &str) -> Result<(), Error> {
        match self.is_capturing(stream)? {
            true => Err(failure(format!("{what} while a graph is captured"))),
            false => Ok(()),
        }
    }
}

impl Device for Driver {
    fn info(&self) -> DeviceInfo {
        self.info.clone()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        let _relaxed = self.context.enter_relaxed()?;
        let mut at = 0;
        // SAFETY: `at` is there for the call. The driver has no memory of no bytes.
        let result = unsafe { sys::cuMemAlloc_v2(&mut at, bytes.max(1)) };
        let ordinal = self.info.ordinal;
        check(
            result,
            &format!("taking {bytes} bytes of memory of device {ordinal}"),
        )?;
        Ok(at)
    }

    unsafe fn free(&self, at: u64, _bytes: usize) {
        if let Ok(_relaxed) = self.context.enter_relaxed() {
            // SAFETY: the caller's promise. It waits for the device by itself; a failure is one of
            // earlier work, which the next call says.
            let _ = unsafe { sys::cuMemFree_v2(at) };
        }
    }

    unsafe fn fill(&self, stream: u64, at: u64, byte: u8, bytes: usize) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let _entered = self.context.enter()?;
        // SAFETY: the caller's promise.
        let result = unsafe { sys::cuMemsetD8Async(at, byte, bytes, stream as CUstream) };
        check(result, &format!("filling {bytes} bytes"))
    }

    unsafe fn write(&self, stream: u64, to: u64, bytes: &[u8]) -> Result<(), Error> {
        self.not_captured(stream, "a copy from the host")?;
        // SAFETY: the caller's promise.
        unsafe { self.staging.write(stream, to, bytes) }
    }

    unsafe fn read(&self, stream: u64, from: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.not_captured(stream, "a copy to the host")?;
        if !bytes.is_empty() {
            let _relaxed = self.context.enter_relaxed()?;
            let doing = format!("copying {} bytes to the host", bytes.len());
            // SAFETY: the caller's promise; `bytes` stays borrowed until the copy has ended.
            let result = unsafe {
                sys::cuMemcpyDtoHAsync_v2(
                    bytes.as_mut_ptr().cast(),
                    from,
                    bytes.len(),
                    stream as CUstream,
                )
            };
            check(result, &doing)?;
        }
        self.synchronize(stream)
    }

    unsafe fn copy(&self, stream: u64, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let _entered = self.context.enter()?;
        // SAFETY: the caller's promise.
        let result = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, stream as CUstream) };
        check(result, &format!("copying {bytes} bytes on the device"))
    }

    unsafe fn launch(
        &self,
        stream: u64,
        kernel: &'static str,
        grid: u32,
        shared: u32,
        argument: &Launch,
    ) -> Result<(), Error> {
        let function = self.kernels.get(kernel)?;
        if grid == 0 {
            return Ok(());
        }
        let _entered = self.context.enter()?;
        let mut arguments = [std::ptr::from_ref(argument).cast_mut().cast::<c_void>()];
        // SAFETY: the caller's promise. Every kernel takes one `Launch`, which the call copies.
        let result = unsafe {
            sys::cuLaunchKernel(
                function,
                grid,
                1,
                1,
                BLOCK,
                1,
                1,
                shared,
                stream as CUstream,
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        if result == CUresult::CUDA_SUCCESS {
            return Ok(());
        }
        let doing = format!(
            "launching {grid} blocks of `{kernel}` with {shared} bytes of shared memory each"
        );
        check(result, &doing)
    }

    fn synchronize(&self, stream: u64) -> Result<(), Error> {
        self.not_captured(stream, "waiting for a stream")?;
        let _relaxed = self.context.enter_relaxed()?;
        // SAFETY: the stream is one of this context.
        let result = unsafe { sys::cuStreamSynchronize(stream as CUstream) };
        check(result, "what was launched before")
    }

    fn is_capturing(&self, stream: u64) -> Result<bool, Error> {
        /// The default stream by its other name.
        const LEGACY: u64 = 1;
        // It cannot be captured, and asking spoils the captures of other streams.
        if stream == 0 || stream == LEGACY {
            return Ok(false);
        }
        let _entered = self.context.enter()?;
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: the stream is one of this context; `status` is there for the call.
        let result = unsafe { sys::cuStreamIsCapturing(stream as CUstream, &mut status) };
        check(result, "asking whether a graph is captured")?;
        Ok(status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }
}
