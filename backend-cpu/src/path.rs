//! Which instruction set runs.

use lora_pro_core::Error;

use crate::NAME;
use crate::simd::Isa;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// x86-64 with AVX-512 (F, BW, CD, DQ, VL).
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// 64-bit Arm.
    Neon,
    /// No vector instructions of our own.
    Scalar,
}

impl Path {
    /// The paths that this machine can run, the fastest first.
    pub fn available() -> Vec<Path> {
        let mut paths = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if pulp::x86::V4::try_new().is_some() {
                paths.push(Path::Avx512);
            }
            if pulp::x86::V3::try_new().is_some() {
                paths.push(Path::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if pulp::aarch64::Neon::try_new().is_some() {
            paths.push(Path::Neon);
        }
        paths.push(Path::Scalar);
        paths
    }

    /// The path asked for, or the fastest one.
    pub(crate) fn choose(wanted: Option<Path>) -> Result<Path, Error> {
        let paths = Path::available();
        match wanted {
            None => Ok(paths[0]),
            Some(path) if paths.contains(&path) => Ok(path),
            Some(path) => Err(Error::backend(NAME, format!("this machine has no {path}"))),
        }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Path::Avx512 => "AVX-512",
            Path::Avx2 => "AVX2+FMA",
            Path::Neon => "NEON",
            Path::Scalar => "scalar",
        })
    }
}

/// Something to be compiled for every instruction set.
pub(crate) trait Job {
    type Output;

    /// To be marked `#[inline(always)]`.
    fn run<S: Isa>(self, simd: S) -> Self::Output;
}

impl Path {
    /// Runs a job on this path. Where the machine lacks it, which [`Path::choose`] has excluded,
    /// the job runs without vector instructions.
    pub(crate) fn run<J: Job>(self, job: J) -> J::Output {
        #[cfg(target_arch = "x86_64")]
        {
            if let (Path::Avx512, Some(simd)) = (self, pulp::x86::V4::try_new()) {
                return vectorized(simd, job);
            }
            if let (Path::Avx2, Some(simd)) = (self, pulp::x86::V3::try_new()) {
                return vectorized(simd, job);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let (Path::Neon, Some(simd)) = (self, pulp::aarch64::Neon::try_new()) {
            return vectorized(simd, job);
        }
        vectorized(pulp::Scalar::new(), job)
    }
}

/// The job inside of a function that has the instruction set's features.
pub(crate) fn vectorized<S: Isa, J: Job>(simd: S, job: J) -> J::Output {
    struct Bound<S, J>(S, J);
    impl<S: Isa, J: Job> pulp::WithSimd for Bound<S, J> {
        type Output = J::Output;

        #[inline(always)]
        fn with_simd<Same: pulp::Simd>(self, _: Same) -> J::Output {
            self.1.run(self.0)
        }
    }
    simd.vectorize(Bound(simd, job))
}
