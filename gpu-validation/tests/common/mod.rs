//! A GPU of the tests: the kernels run on the CPU, graphs are lists of launches.

// Each test binary uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use lora_pro_core::Error;
use lora_pro_cuda::device::{About, Device, Launch};
use lora_pro_cuda::driver::Elapsed;
use lora_pro_cuda_emulator::Emulator;
use lora_pro_gpu_validation::effort::Effort;
use lora_pro_gpu_validation::gpu::{Gpu, Replay, Stream};
use lora_pro_gpu_validation::parts::Bench;

/// A launch that is recorded.
type Recorded = (&'static str, u32, u32, Launch);

/// What may be wrong with a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    /// This kernel does nothing.
    pub lame: Option<&'static str>,
    /// Graphs forget their last launch.
    pub forgetful: bool,
}

pub struct Emulated {
    emulator: Arc<Emulator>,
    tape: Mutex<Option<Vec<Recorded>>>,
    fault: Fault,
    /// Kernels that were launched.
    seen: Mutex<BTreeSet<&'static str>>,
}

struct Tape {
    emulator: Arc<Emulator>,
    launches: Vec<Recorded>,
    nodes: usize,
}

impl Emulated {
    pub fn new(fault: Fault) -> Self {
        let emulator = Emulator::new().unwrap_or_else(|error| panic!("{error}"));
        Emulated {
            emulator: Arc::new(emulator),
            tape: Mutex::default(),
            fault,
            seen: Mutex::default(),
        }
    }

    pub fn seen(&self) -> BTreeSet<&'static str> {
        self.seen.lock().unwrap().clone()
    }
}

pub fn bench(gpu: Arc<dyn Gpu>, out: &Path) -> Bench {
    Bench {
        gpu,
        effort: Effort::TINY,
        out: out.to_path_buf(),
        python: "no-such-python".into(),
        sanitizer: "no-such-sanitizer".into(),
    }
}

impl Device for Emulated {
    fn about(&self) -> About {
        self.emulator.about()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        self.emulator.allocate(bytes)
    }

    unsafe fn free(&self, at: u64, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.emulator.free(at, bytes) };
    }

    unsafe fn fill(&self, stream: u64, at: u64, byte: u8, bytes: usize) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.emulator.fill(stream, at, byte, bytes) }
    }

    unsafe fn write(&self, stream: u64, to: u64, bytes: &[u8]) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.emulator.write(stream, to, bytes) }
    }

    unsafe fn read(&self, stream: u64, from: u64, bytes: &mut [u8]) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.emulator.read(stream, from, bytes) }
    }

    unsafe fn copy(&self, stream: u64, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.emulator.copy(stream, from, to, bytes) }
    }

    unsafe fn launch(
        &self,
        stream: u64,
        kernel: &'static str,
        grid: u32,
        shared: u32,
        argument: &Launch,
    ) -> Result<(), Error> {
        if let Some(tape) = self.tape.lock().unwrap().as_mut() {
            tape.push((kernel, grid, shared, *argument));
            return Ok(());
        }
        self.seen.lock().unwrap().insert(kernel);
        if self.fault.lame == Some(kernel) {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.emulator.launch(stream, kernel, grid, shared, argument) }
    }

    fn synchronize(&self, stream: u64) -> Result<(), Error> {
        self.emulator.synchronize(stream)
    }

    fn is_capturing(&self, stream: u64) -> Result<bool, Error> {
        self.emulator.is_capturing(stream)
    }
}

impl Gpu for Emulated {
    fn facts(&self) -> Result<Vec<(String, String)>, Error> {
        Ok(vec![("device".into(), self.about().name)])
    }

    fn stream(&self) -> Result<Stream, Error> {
        Ok(Stream {
            raw: 7,
            keeper: Box::new(()),
        })
    }

    fn begin_capture(&self, _stream: u64) -> Result<(), Error> {
        self.emulator.set_capturing(true);
        *self.tape.lock().unwrap() = Some(vec![]);
        Ok(())
    }

    fn end_capture(&self, _stream: u64) -> Result<Box<dyn Replay>, Error> {
        self.emulator.set_capturing(false);
        let mut launches = self.tape.lock().unwrap().take().unwrap_or_default();
        let nodes = launches.len();
        if self.fault.forgetful {
            launches.pop();
        }
        Ok(Box::new(Tape {
            emulator: self.emulator.clone(),
            launches,
            nodes,
        }))
    }

    fn time(
        &self,
        _stream: u64,
        work: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Elapsed, Error> {
        let start = Instant::now();
        work()?;
        Ok(Elapsed {
            milliseconds: start.elapsed().as_secs_f64() * 1e3,
            by_device: false,
        })
    }
}

impl Replay for Tape {
    fn nodes(&self) -> usize {
        self.nodes
    }

    unsafe fn launch(&self, stream: u64) -> Result<(), Error> {
        for (kernel, grid, shared, argument) in &self.launches {
            // SAFETY: the caller's promise.
            unsafe {
                self.emulator
                    .launch(stream, kernel, *grid, *shared, argument)?
            };
        }
        Ok(())
    }
}
