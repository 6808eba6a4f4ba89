//! The device itself.

use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::Library;
use lora_pro_core::Error;
use lora_pro_cuda::device::{Device, DeviceInfo, Launch};

use crate::compile::{self, Checks, build, kernels};
use crate::failed;
use crate::memory::Memory;

/// The order of threads where none was asked for: forwards.
pub const ORDER: i32 = 0;

/// The shared memory that a block can have on an H100.
const MOST_SHARED: u32 = 227 * 1024;

type Kernel = unsafe extern "C" fn(Launch);
type Start = unsafe extern "C" fn(Kernel, u32, u32, *const Launch, c_int) -> *const c_char;

/// A CPU that takes itself for a GPU. All that it is asked for is done when the call returns.
pub struct Emulator {
    library: Library,
    code: String,
    order: i32,
    memory: Mutex<Memory>,
    /// What `free` had to say and could not.
    pending: Mutex<Option<String>>,
    capturing: AtomicBool,
}

impl Emulator {
    /// With the kernels of the CUDA backend, or with the library that the variable `LORA_PRO_EMULATOR_LIBRARY`
    /// names.
    ///
    /// # Errors
    /// Those of [`build`] and [`Emulator::of`].
    pub fn new() -> Result<Self, Error> {
        Self::compiled(Checks::Off)
    }

    /// The same with [`Checks::On`]: slower.
    ///
    /// # Errors
    /// As [`Emulator::new`].
    pub fn checked() -> Result<Self, Error> {
        Self::compiled(Checks::On)
    }

    fn compiled(checks: Checks) -> Result<Self, Error> {
        static BUILT: [OnceLock<PathBuf>; 3] = [const { OnceLock::new() }; 3];
        if let Some(library) = std::env::var_os("LORA_PRO_EMULATOR_LIBRARY") {
            return Self::of(Path::new(&library));
        }
        let built = &BUILT[checks as usize];
        if let Some(library) = built.get() {
            return Self::of(library);
        }
        let library = build(&kernels(), &compile::cache(), checks)?;
        Self::of(built.get_or_init(|| library))
    }

    /// With the kernels of a library that [`build`] has made.
    ///
    /// # Errors
    /// [`Error::Backend`] where it cannot be loaded.
    pub fn of(library: &Path) -> Result<Self, Error> {
        // SAFETY: `build` makes libraries that do nothing when they are loaded.
        let loaded = unsafe { Library::new(library) };
        Ok(Emulator {
            library: loaded.map_err(|error| failed(error.to_string()))?,
            code: library.display().to_string(),
            order: ORDER,
            memory: Mutex::default(),
            pending: Mutex::default(),
            capturing: AtomicBool::new(false),
        })
    }

    /// With threads, warps and blocks in another order: 0 is forwards, 1 is backwards, any other
    /// number is the seed of a random one, in which also the warps take turns.
    #[must_use]
    pub fn with_order(mut self, order: i32) -> Self {
        self.order = order;
        self
    }

    /// Says that streams are being captured, or no longer. What would have to wait is refused then.
    pub fn set_capturing(&self, capturing: bool) {
        self.capturing.store(capturing, Ordering::SeqCst);
    }

    /// Bytes that are allocated now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.memory().in_use()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Option<String>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all is well so far.
    fn check(&self) -> Result<(), String> {
        self.pending().take().map_or(Ok(()), Err)?;
        self.memory().check()
    }

    /// Whether all these bytes are memory of the device.
    fn owns(&self, at: u64, bytes: usize) -> Result<(), Error> {
        self.memory().owns(at, bytes).map_err(failed)
    }

    fn may_wait(&self, what: &str) -> Result<(), Error> {
        if self.capturing.load(Ordering::SeqCst) {
            return Err(failed(format!("{what} while a stream is being captured")));
        }
        Ok(())
    }

    /// The function of a name.
    ///
    /// # Safety
    /// It must be of the type `F`, a function pointer.
    unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, Error> {
        // SAFETY: the caller vouches for the type.
        let found = unsafe { self.library.get::<F>(name) };
        found
            .map(|symbol| *symbol)
            .map_err(|_| failed(format!("there is no kernel `{name}`")))
    }
}

impl Device for Emulator {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            name: "CPU emulator".into(),
            ordinal: 0,
            code: self.code.clone(),
        }
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        self.may_wait("an allocation")?;
        self.memory().allocate(bytes).map_err(failed)
    }

    unsafe fn free(&self, at: u64, bytes: usize) {
        if let Err(error) = self.memory().free(at, bytes) {
            self.pending().get_or_insert(error);
        }
    }

    unsafe fn fill(&self, _stream: u64, at: u64, byte: u8, bytes: usize) -> Result<(), Error> {
        self.owns(at, bytes)?;
        // SAFETY: the bytes are memory of the device.
        unsafe { ptr::write_bytes(at as *mut u8, byte, bytes) };
        Ok(())
    }

    unsafe fn write(&self, _stream: u64, to: u64, bytes: &[u8]) -> Result<(), Error> {
        self.may_wait("a copy from the host")?;
        self.owns(to, bytes.len())?;
        // SAFETY: the bytes are memory of the device, which no slice of the host lies in.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn read(&self, _stream: u64, from: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.may_wait("a copy to the host")?;
        self.owns(from, bytes.len())?;
        // SAFETY: as in `write`.
        unsafe { ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn copy(&self, _stream: u64, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        self.owns(from, bytes)?;
        self.owns(to, bytes)?;
        if from.abs_diff(to) < bytes as u64 {
            return Err(failed(format!(
                "a copy of {bytes} bytes from {from:#x} to {to:#x} overlaps"
            )));
        }
        // SAFETY: both ranges are memory of the device, and they do not overlap.
        unsafe { ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn launch(
        &self,
        _stream: u64,
        kernel: &'static str,
        grid: u32,
        shared: u32,
        argument: &Launch,
    ) -> Result<(), Error> {
        let refused = |why: &str| failed(format!("kernel `{kernel}` on {grid} blocks: {why}"));
        if grid == 0 || grid > i32::MAX as u32 {
            return Err(refused("that many there cannot be"));
        }
        if shared > MOST_SHARED {
            return Err(refused(&format!(
                "{shared} bytes of shared memory are too many"
            )));
        }
        // SAFETY: `build` exports one function besides the kernels, of this type.
        let start = unsafe { self.function::<Start>("emulator_launch") }?;
        // SAFETY: all others are kernels.
        let function = unsafe { self.function::<Kernel>(kernel) }?;
        // SAFETY: the caller vouches for the argument; it lives until the launch is over.
        let error = unsafe { start(function, grid, shared, argument, self.order) };
        if !error.is_null() {
            // SAFETY: a text that stays until this thread's next launch.
            let text = unsafe { CStr::from_ptr(error) };
            return Err(refused(&text.to_string_lossy()));
        }
        self.check().map_err(|error| refused(&error))
    }

    fn synchronize(&self, _stream: u64) -> Result<(), Error> {
        self.may_wait("waiting for a stream")?;
        self.check().map_err(failed)
    }

    fn is_capturing(&self, _stream: u64) -> Result<bool, Error> {
        Ok(self.capturing.load(Ordering::SeqCst))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let well = self.check();
        if !std::thread::panicking() {
            // A test device must not keep to itself what it has seen.
            well.expect("all memory of the device is as it should be");
        }
    }
}
