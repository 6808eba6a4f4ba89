//! A GPU of the tests: the kernels run on the CPU, graphs are lists of launches.

// Each test binary uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use lora_pro_core::Error;
use lora_pro_cuda::device::{Device, Launch};
use lora_pro_cuda::driver::Elapsed;
use lora_pro_cuda::hooked::{Call, Hook, Hooked, Next};
use lora_pro_cuda_emulator::Emulator;
use lora_pro_gpu_validation::ctx::Ctx;
use lora_pro_gpu_validation::effort::Effort;
use lora_pro_gpu_validation::gpu::{Gpu, Replay, Stream};

/// A launch that is recorded.
type Recorded = (&'static str, u32, u32, Launch);

/// What may be wrong with a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    /// This kernel does nothing.
    pub skipped_kernel: Option<&'static str>,
    /// Graphs lose their last launch.
    pub drops_last_node: bool,
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
    pub fn new(fault: Fault) -> Arc<Self> {
        let emulator = Emulator::new().unwrap_or_else(|error| panic!("{error}"));
        Arc::new(Emulated {
            emulator: Arc::new(emulator),
            tape: Mutex::default(),
            fault,
            seen: Mutex::default(),
        })
    }

    pub fn seen(&self) -> BTreeSet<&'static str> {
        self.seen.lock().unwrap().clone()
    }
}

pub fn ctx(gpu: Arc<Emulated>, out: &Path) -> Ctx {
    Ctx {
        device: Arc::new(Hooked::new(gpu.emulator.clone(), Recorder(gpu.clone()))),
        gpu,
        effort: Effort::TINY,
        out: out.to_path_buf(),
        tests: Some("no-such-tests".into()),
        python: "no-such-python".into(),
        sanitizer: "no-such-sanitizer".into(),
    }
}

struct Recorder(Arc<Emulated>);

impl Hook for Recorder {
    fn before(&self, call: Call<'_>) -> Result<Next, Error> {
        let Call::Launch(kernel, grid, shared, argument) = call else {
            return Ok(Next::Call);
        };
        if let Some(tape) = self.0.tape.lock().unwrap().as_mut() {
            tape.push((kernel, grid, shared, *argument));
            return Ok(Next::LeaveOut);
        }
        self.0.seen.lock().unwrap().insert(kernel);
        let skipped = self.0.fault.skipped_kernel == Some(kernel);
        Ok(if skipped { Next::LeaveOut } else { Next::Call })
    }
}

impl Gpu for Emulated {
    fn facts(&self) -> Result<Vec<(String, String)>, Error> {
        Ok(vec![("device".into(), self.emulator.info().name)])
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
        if self.fault.drops_last_node {
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
