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
    /// The levels that this machine can run, the fastest first.
    pub fn available() -> Vec<SimdLevel> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if pulp::x86::V4::try_new().is_some() {
                levels.push(SimdLevel::Avx512);
            }
            if pulp::x86::V3::try_new().is_some() {
                levels.push(SimdLevel::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if pulp::aarch64::Neon::try_new().is_some() {
            levels.push(SimdLevel::Neon);
        }
        levels.push(SimdLevel::Scalar);
        levels
    }

    /// The level asked for, or the fastest one.
    pub(crate) fn choose(wanted: Option<SimdLevel>) -> Result<SimdLevel, Error> {
        let levels = SimdLevel::available();
        match wanted {
            None => Ok(levels[0]),
            Some(level) if levels.contains(&level) => Ok(level),
            Some(level) => Err(Error::backend(NAME, format!("this machine has no {level}"))),
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

/// A loop that is compiled for every instruction set.
pub(crate) trait Kernel {
    /// To be marked `#[inline(always)]`.
    fn run<S: Isa>(self, simd: S);
}

impl SimdLevel {
    /// Runs a kernel on this level. Where the machine lacks it, which [`SimdLevel::choose`] has
    /// excluded, it runs without vector instructions.
    pub(crate) fn run<K: Kernel>(self, kernel: K) {
        #[cfg(target_arch = "x86_64")]
        {
            if let (SimdLevel::Avx512, Some(simd)) = (self, pulp::x86::V4::try_new()) {
                return vectorized(simd, kernel);
            }
            if let (SimdLevel::Avx2, Some(simd)) = (self, pulp::x86::V3::try_new()) {
                return vectorized(simd, kernel);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let (SimdLevel::Neon, Some(simd)) = (self, pulp::aarch64::Neon::try_new()) {
            return vectorized(simd, kernel);
        }
        vectorized(pulp::Scalar::new(), kernel);
    }
}

/// The kernel inside of a function that has the instruction set's features.
pub(crate) fn vectorized<S: Isa, K: Kernel>(simd: S, kernel: K) {
    struct Bound<S, K>(S, K);
    impl<S: Isa, K: Kernel> pulp::WithSimd for Bound<S, K> {
        type Output = ();

        #[inline(always)]
        fn with_simd<Same: pulp::Simd>(self, _: Same) {
            self.1.run(self.0);
        }
    }
    simd.vectorize(Bound(simd, kernel));
}
