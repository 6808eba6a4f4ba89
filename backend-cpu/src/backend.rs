//! The backend.

use lora_pro_core::{
    Backend, Buffer, Control, DType, Determinism, Error, Manifest, Memory, Rounding, Slots,
    StateTensor, StepIo, StepReport,
};

use crate::Path;

/// The backend's name.
pub const NAME: &str = "cpu";

/// How a backend is set up; the default is right for everything but tests and benchmarks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads of a pool of its own; `None` for the rayon pool that the caller is in, or the
    /// global one.
    pub threads: Option<usize>,
    /// The instruction set; `None` for the fastest that the machine has.
    pub path: Option<Path>,
    /// Fill all scratch memory with NaN before each step: for tests.
    pub poison: bool,
}

/// LoRA-Pro on the CPU.
pub struct CpuBackend {
    path: Path,
    threads: usize,
}

impl CpuBackend {
    /// On the fastest instruction set, in the ambient rayon pool.
    pub fn new() -> Self {
        CpuBackend {
            path: Path::available()[0],
            threads: rayon::current_num_threads(),
        }
    }

    /// With options; an instruction set that the machine lacks is an error.
    pub fn with(options: Options) -> Result<Self, Error> {
        let path = Path::choose(options.path)?;
        let threads = options.threads.unwrap_or_else(rayon::current_num_threads);
        Ok(CpuBackend { path, threads })
    }

    fn not_yet(&self) -> Error {
        Error::Backend {
            backend: NAME.into(),
            reason: "not there yet".into(),
        }
    }
}

impl Default for CpuBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for CpuBackend {
    fn manifest(&self) -> Manifest {
        Manifest {
            name: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            device: "CPU".into(),
            memory: Memory::Host,
            dtypes: DType::PARAMETERS.to_vec(),
            moment_dtypes: vec![DType::F64, DType::F32, DType::Bf16, DType::U8],
            roundings: vec![Rounding::Nearest, Rounding::Stochastic, Rounding::Master],
            accumulate: DType::F64,
            simd: self.path.to_string(),
            threads: self.threads,
            determinism: Determinism::Bitwise,
            chosen: "asked for".into(),
        }
    }

    fn allocate(&mut self, _: &StateTensor) -> Result<Buffer, Error> {
        Err(self.not_yet())
    }

    fn download(&self, _: &StateTensor, _: &Buffer) -> Result<Vec<u8>, Error> {
        Err(self.not_yet())
    }

    fn upload(&mut self, _: &StateTensor, _: &mut Buffer, _: &[u8]) -> Result<(), Error> {
        Err(self.not_yet())
    }

    fn step(&mut self, _: Slots<'_>, _: StepIo<'_, '_>, _: &Control) -> Result<StepReport, Error> {
        Err(self.not_yet())
    }
}
