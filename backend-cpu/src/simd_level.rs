//! Which instruction set runs.

use lora_pro_core::Error;

use crate::NAME;
use crate::simd::Isa;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimdLevel {
    /// x86-64 with AVX-512 (F, BW, CD, DQ, VL).
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// 64-bit Arm.
    Neon,
    /// No vector instructions of our own.
    Scalar,
}

impl SimdLevel {
    /// The paths that this machine can run, the fastest first.
    pub fn available() -> Vec<SimdLevel> {
        let mut paths = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if pulp::x86::V4::try_new().is_some() {
                paths.push(SimdLevel::Avx512);
            }
            if pulp::x86::V3::try_new().is_some() {
                paths.push(SimdLevel::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if pulp::aarch64::Neon::try_new().is_some() {
            paths.push(SimdLevel::Neon);
        }
        paths.push(SimdLevel::Scalar);
        paths
    }

    /// The path asked for, or the fastest one.
    pub(crate) fn choose(wanted: Option<SimdLevel>) -> Result<SimdLevel, Error> {
        let paths = SimdLevel::available();
        match wanted {
            None => Ok(paths[0]),
            Some(path) if paths.contains(&path) => Ok(path),
            Some(path) => Err(Error::backend(NAME, format!("this machine has no {path}"))),
        }
    }
}

impl std::fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SimdLevel::Avx512 => "AVX-512",
            SimdLevel::Avx2 => "AVX2+FMA",
            SimdLevel::Neon => "NEON",
            SimdLevel::Scalar => "scalar",
        })
    }
}

/// Something to be compiled for every instruction set.
pub(crate) trait Kernel {
    type Output;

    /// To be marked `#[inline(always)]`.
    fn run<S: Isa>(self, simd: S) -> Self::Output;
}

impl SimdLevel {
    /// Runs a job on this path. Where the machine lacks it, which [`SimdLevel::choose`] has excluded,
    /// the job runs without vector instructions.
    pub(crate) fn run<J: Kernel>(self, job: J) -> J::Output {
        #[cfg(target_arch = "x86_64")]
        {
            if let (SimdLevel::Avx512, Some(simd)) = (self, pulp::x86::V4::try_new()) {
                return vectorized(simd, job);
            }
            if let (SimdLevel::Avx2, Some(simd)) = (self, pulp::x86::V3::try_new()) {
                return vectorized(simd, job);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let (SimdLevel::Neon, Some(simd)) = (self, pulp::aarch64::Neon::try_new()) {
            return vectorized(simd, job);
        }
        vectorized(pulp::Scalar::new(), job)
    }
}

/// The job inside of a function that has the instruction set's features.
pub(crate) fn vectorized<S: Isa, J: Kernel>(simd: S, job: J) -> J::Output {
    struct Bound<S, J>(S, J);
    impl<S: Isa, J: Kernel> pulp::WithSimd for Bound<S, J> {
        type Output = J::Output;

        #[inline(always)]
        fn with_simd<Same: pulp::Simd>(self, _: Same) -> J::Output {
            self.1.run(self.0)
        }
    }
    simd.vectorize(Bound(simd, job))
}
