//! The storage types of parameters and gradients: how their bytes become numbers and back.

use bytemuck::Pod;
use half::{bf16, f16};
use lora_pro_core::DType;

use crate::rounding::{nearest_bf16, stochastic_bf16, stochastic_f16};
use crate::simd::Real;

/// A storage type of parameters and gradients. A byte is none: it holds the code of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    F64,
    F32,
    Bf16,
    F16,
}

impl Storage {
    /// The storage type of this name; `None` for bytes.
    pub(crate) fn of(dtype: DType) -> Option<Storage> {
        match dtype {
            DType::F64 => Some(Storage::F64),
            DType::F32 => Some(Storage::F32),
            DType::Bf16 => Some(Storage::Bf16),
            DType::F16 => Some(Storage::F16),
            DType::U8 => None,
        }
    }
}

/// One storage type's conversions.
pub(crate) trait Stored {
    type Bytes: Pod;

    fn decode<T: Real>(bytes: Self::Bytes) -> T;
    /// Rounds to nearest.
    fn encode<T: Real>(x: T) -> Self::Bytes;
    /// Rounds up or down, as the random bits decide.
    fn encode_stochastic<T: Real>(x: T, random: u32) -> Self::Bytes;
}

macro_rules! stored {
    ($type:ty, $bytes:ty, $from:expr, $to:expr, $to_stochastic:expr) => {
        impl Stored for $type {
            type Bytes = $bytes;

            #[inline(always)]
            fn decode<T: Real>(bytes: $bytes) -> T {
                $from(<$type>::from_ne_bytes(bytes))
            }
            #[inline(always)]
            fn encode<T: Real>(x: T) -> $bytes {
                <$type>::to_ne_bytes($to(x))
            }
            #[inline(always)]
            fn encode_stochastic<T: Real>(x: T, random: u32) -> $bytes {
                <$type>::to_ne_bytes($to_stochastic(x, random))
            }
        }
    };
}

stored!(f64, [u8; 8], T::of, T::wide, |x, _| T::wide(x));
stored!(f32, [u8; 4], T::of_f32, T::narrow, |x, _| T::narrow(x));
stored!(
    bf16,
    [u8; 2],
    |x: bf16| T::of_f32(f32::from_bits(u32::from(x.to_bits()) << 16)),
    |x| nearest_bf16(T::narrow(x)),
    |x, random| stochastic_bf16(T::narrow(x), random)
);
stored!(
    f16,
    [u8; 2],
    |x: f16| T::of_f32(x.to_f32()),
    |x| f16::from_f32(T::narrow(x)),
    |x, random| stochastic_f16(T::narrow(x), random)
);
