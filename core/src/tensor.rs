//! Borrowed matrices of any strides and storage type, on the host or on a device.
//!
//! A backend copies nothing that grows with the model, so it must take the memory of candle,
//! torch or a plain slice as it lies. Torch hands out interleaved, unaligned views whose extents
//! overlap; two Rust slices could not describe them. So a view is a raw pointer with shape,
//! strides and dtype, and carries the lifetime of what it borrows. Everything unsafe about this
//! is in this module: the safe constructors check that all elements lie in a slice and that a
//! mutable view reaches each of them once.

use std::marker::PhantomData;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Storage types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
    /// A byte: the code of an 8-bit moment ([`crate::MomentDType::EightBit`]). No parameter has it.
    U8,
}

impl DType {
    /// What parameters and gradients can be stored as.
    pub const PARAMETERS: [DType; 4] = [DType::F64, DType::F32, DType::Bf16, DType::F16];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 => 4,
            DType::Bf16 | DType::F16 => 2,
            DType::U8 => 1,
        }
    }

    /// The unit round-off u: half the distance from 1 to the next number.
    pub fn unit_roundoff(self) -> f64 {
        match self {
            DType::F64 => f64::EPSILON / 2.0,
            DType::F32 => f64::from(f32::EPSILON) / 2.0,
            DType::Bf16 => 2f64.powi(-8),
            DType::F16 => 2f64.powi(-11),
            DType::U8 => 0.5,
        }
    }

    /// `x` rounded to this type and back.
    pub fn round(self, x: f64) -> f64 {
        match self {
            DType::F64 => x,
            DType::F32 => f64::from(x as f32),
            DType::Bf16 => bf16::from_f32(to_odd(x)).to_f64(),
            DType::F16 => f16::from_f32(to_odd(x)).to_f64(),
            DType::U8 => f64::from(x.round_ties_even() as u8),
        }
    }
}

/// x in f32, rounded to odd: toward zero, and with the last bit set where anything was cut off.
///
/// Rounding that to a 16-bit type rounds x itself, ties included; rounding the nearest f32 number
/// (or, as `half` does, what is left of x without its lower 32 bits) does not.
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) == x || x.is_nan() {
        return near;
    }
    let beyond = f64::from(near).abs() > x.abs();
    f32::from_bits((near.to_bits() - u32::from(beyond)) | 1)
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::U8 => "u8",
        })
    }
}

impl std::str::FromStr for DType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        DType::PARAMETERS
            .into_iter()
            .find(|dtype| dtype.to_string() == text)
            .ok_or_else(|| Error::parse("dtype", text, "one of f64 f32 bf16 f16"))
    }
}

mod sealed {
    pub trait Sealed: Sized {
        /// Appends the little-endian bytes.
        fn write(self, bytes: &mut Vec<u8>);

        /// All values of little-endian bytes; an incomplete one at the end is left out.
        fn read(bytes: &[u8]) -> Vec<Self>;
    }
}

/// Rust types that tensors are made of. Sealed: every bit pattern of each is a value.
pub trait Element: Copy + sealed::Sealed + 'static {
    /// The storage type's name.
    const DTYPE: DType;
}

macro_rules! element {
    ($($type:ty => $dtype:expr),+) => {$(
        impl sealed::Sealed for $type {
            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn read(bytes: &[u8]) -> Vec<Self> {
                let (chunks, _) = bytes.as_chunks::<{ size_of::<$type>() }>();
                chunks.iter().map(|chunk| <$type>::from_le_bytes(*chunk)).collect()
            }
        }
        impl Element for $type { const DTYPE: DType = $dtype; }
    )+};
}
element!(f64 => DType::F64, f32 => DType::F32, bf16 => DType::Bf16, f16 => DType::F16,
    u8 => DType::U8);

/// Where a tensor's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Location {
    /// Ordinary memory.
    Host,
    /// The memory of the CUDA device with this ordinal.
    Cuda(usize),
}

/// Pointer, shape, strides (in elements), dtype and place of a matrix.
#[derive(Clone, Copy, Debug)]
struct Raw {
    ptr: *mut u8,
    shape: [usize; 2],
    strides: [isize; 2],
    dtype: DType,
    location: Location,
}

impl Raw {
    /// Address of element (i, j).
    fn at(&self, i: usize, j: usize) -> *mut u8 {
        let [rows, cols] = self.shape;
        assert!(
            i < rows && j < cols,
            "({i}, {j}) is outside of {rows} x {cols}"
        );
        assert!(
            self.location == Location::Host,
            "device memory cannot be read by the host"
        );
        let offset = i as isize * self.strides[0] + j as isize * self.strides[1];
        self.ptr
            .wrapping_offset(offset * self.dtype.size() as isize)
    }

    fn get(&self, i: usize, j: usize) -> f64 {
        let at = self.at(i, j);
        // SAFETY: `at` is inside of the view (asserted), whose elements are readable values of
        // its dtype by the constructors' contracts; reads may be unaligned.
        unsafe {
            match self.dtype {
                DType::F64 => at.cast::<f64>().read_unaligned(),
                DType::F32 => f64::from(at.cast::<f32>().read_unaligned()),
                DType::Bf16 => at.cast::<bf16>().read_unaligned().to_f64(),
                DType::F16 => at.cast::<f16>().read_unaligned().to_f64(),
                DType::U8 => f64::from(at.read()),
            }
        }
    }

    fn set(&self, i: usize, j: usize, x: f64) {
        let at = self.at(i, j);
        // SAFETY: as in `get`; and only `MatMut`, whose constructors ask for exclusive access,
        // calls this.
        unsafe {
            match self.dtype {
                DType::F64 => at.cast::<f64>().write_unaligned(x),
                DType::F32 => at.cast::<f32>().write_unaligned(x as f32),
                DType::Bf16 => at.cast::<bf16>().write_unaligned(bf16::from_f32(to_odd(x))),
                DType::F16 => at.cast::<f16>().write_unaligned(f16::from_f32(to_odd(x))),
                DType::U8 => at.write(x.round_ties_even() as u8),
            }
        }
    }
}

/// Checks that a view with these strides lies within `len` elements.
fn check_extent(len: usize, shape: [usize; 2], strides: [usize; 2]) -> Result<(), Error> {
    let last = (0..2).try_fold(0usize, |sum, k| {
        shape[k]
            .checked_sub(1)?
            .checked_mul(strides[k])?
            .checked_add(sum)
    });
    let reason = match last {
        None => "its extent is empty or overflows",
        Some(last) if last >= len => "it reaches past the end",
        Some(_) => return Ok(()),
    };
    Err(Error::View {
        shape,
        strides,
        len,
        reason,
    })
}

/// Checks that no two pairs of indices reach the same element.
fn check_distinct(len: usize, shape: [usize; 2], strides: [usize; 2]) -> Result<(), Error> {
    let inner = if strides[0] < strides[1] { 0 } else { 1 };
    let outer = 1 - inner;
    let inner_ok = shape[inner] == 1 || strides[inner] > 0;
    let inner_span = (shape[inner] - 1) * strides[inner];
    if inner_ok && (shape[outer] == 1 || strides[outer] > inner_span) {
        return Ok(());
    }
    let reason = "a mutable view must reach each element once";
    Err(Error::View {
        shape,
        strides,
        len,
        reason,
    })
}

fn signed(strides: [usize; 2]) -> [isize; 2] {
    strides.map(|stride| stride as isize)
}

macro_rules! view_basics {
    ($view:ident) => {
        impl $view<'_> {
            /// Number of rows.
            pub fn rows(&self) -> usize {
                self.raw.shape[0]
            }

            /// Number of columns.
            pub fn cols(&self) -> usize {
                self.raw.shape[1]
            }

            /// Rows and columns.
            pub fn shape(&self) -> [usize; 2] {
                self.raw.shape
            }

            /// Row and column stride, in elements.
            pub fn strides(&self) -> [isize; 2] {
                self.raw.strides
            }

            /// Storage type.
            pub fn dtype(&self) -> DType {
                self.raw.dtype
            }

            /// Where the memory is.
            pub fn location(&self) -> Location {
                self.raw.location
            }

            /// Element (i, j) as f64. Panics outside of the shape and for device memory.
            pub fn get(&self, i: usize, j: usize) -> f64 {
                self.raw.get(i, j)
            }
        }
    };
}

/// A borrowed matrix to read.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    raw: Raw,
    borrow: PhantomData<&'a [u8]>,
}

view_basics!(MatRef);

// SAFETY: a `MatRef` only reads, and what it borrows cannot be written while it lives.
unsafe impl Send for MatRef<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for MatRef<'_> {}

impl<'a> MatRef<'a> {
    /// A row-major view of the start of a slice; `shape` is rows and columns.
    pub fn new<T: Element>(data: &'a [T], shape: [usize; 2]) -> Result<Self, Error> {
        Self::strided(data, shape, [shape[1], 1])
    }

    /// A view with any strides, in elements.
    ///
    /// ```
    /// use lora_pro_core::MatRef;
    /// let column_major = [1.0f32, 2.0, 3.0, 4.0];
    /// let view = MatRef::strided(&column_major, [2, 2], [1, 2])?;
    /// assert_eq!(view.get(0, 1), 3.0);
    /// # Ok::<(), lora_pro_core::Error>(())
    /// ```
    pub fn strided<T: Element>(
        data: &'a [T],
        shape: [usize; 2],
        strides: [usize; 2],
    ) -> Result<Self, Error> {
        check_extent(data.len(), shape, strides)?;
        let ptr = data.as_ptr().cast_mut().cast();
        // SAFETY: all elements lie in `data` (checked), which is borrowed for 'a.
        Ok(unsafe { Self::from_raw(ptr, shape, signed(strides), T::DTYPE, Location::Host) })
    }

    /// A view of foreign memory: torch's, or a device's.
    ///
    /// # Safety
    /// For 'a, every element of the view must be an initialised value of `dtype` at `location`,
    /// readable, and not written (for device memory: by no work that is not ordered by the
    /// stream of the step). Alignment is not required.
    pub unsafe fn from_raw(
        ptr: *const u8,
        shape: [usize; 2],
        strides: [isize; 2],
        dtype: DType,
        location: Location,
    ) -> Self {
        let ptr = ptr.cast_mut();
        let raw = Raw {
            ptr,
            shape,
            strides,
            dtype,
            location,
        };
        MatRef {
            raw,
            borrow: PhantomData,
        }
    }

    /// Address of element (0, 0).
    pub fn as_ptr(&self) -> *const u8 {
        self.raw.ptr
    }
}

/// A borrowed matrix to read and write.
#[derive(Debug)]
pub struct MatMut<'a> {
    raw: Raw,
    borrow: PhantomData<&'a mut [u8]>,
}

view_basics!(MatMut);

// SAFETY: a `MatMut` has exclusive access to its elements, so it may move between threads.
unsafe impl Send for MatMut<'_> {}
// SAFETY: shared references to a `MatMut` only read.
unsafe impl Sync for MatMut<'_> {}

impl<'a> MatMut<'a> {
    /// A row-major view of the start of a slice; `shape` is rows and columns.
    pub fn new<T: Element>(data: &'a mut [T], shape: [usize; 2]) -> Result<Self, Error> {
        Self::strided(data, shape, [shape[1], 1])
    }

    /// A view with any strides, in elements, that reach each element at most once.
    pub fn strided<T: Element>(
        data: &'a mut [T],
        shape: [usize; 2],
        strides: [usize; 2],
    ) -> Result<Self, Error> {
        check_extent(data.len(), shape, strides)?;
        check_distinct(data.len(), shape, strides)?;
        let ptr = data.as_mut_ptr().cast();
        // SAFETY: all elements lie in `data` (checked), which is borrowed mutably for 'a.
        Ok(unsafe { Self::from_raw(ptr, shape, signed(strides), T::DTYPE, Location::Host) })
    }

    /// A mutable view of foreign memory.
    ///
    /// # Safety
    /// As for [`MatRef::from_raw`]; besides, for 'a every element must be writable and reached
    /// through this view alone, and there by one pair of indices only.
    pub unsafe fn from_raw(
        ptr: *mut u8,
        shape: [usize; 2],
        strides: [isize; 2],
        dtype: DType,
        location: Location,
    ) -> Self {
        let raw = Raw {
            ptr,
            shape,
            strides,
            dtype,
            location,
        };
        MatMut {
            raw,
            borrow: PhantomData,
        }
    }

    /// Address of element (0, 0).
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.raw.ptr
    }

    /// Rounds `x` to the storage type and stores it at (i, j). Panics as [`MatMut::get`] does.
    pub fn set(&mut self, i: usize, j: usize, x: f64) {
        self.raw.set(i, j, x);
    }

    /// The same matrix, to read.
    pub fn view(&self) -> MatRef<'_> {
        MatRef {
            raw: self.raw,
            borrow: PhantomData,
        }
    }
}

/// A matrix that owns its host memory: row-major, little-endian bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    dtype: DType,
    shape: [usize; 2],
    bytes: Vec<u8>,
}

impl HostTensor {
    /// All zeros.
    pub fn zeros(dtype: DType, shape: [usize; 2]) -> Self {
        let bytes = vec![0; shape[0] * shape[1] * dtype.size()];
        HostTensor {
            dtype,
            shape,
            bytes,
        }
    }

    /// From row-major values, rounded to `dtype`; entry (i, j) is `f(i, j)`.
    pub fn from_fn(dtype: DType, shape: [usize; 2], f: impl Fn(usize, usize) -> f64) -> Self {
        let mut tensor = Self::zeros(dtype, shape);
        let mut view = tensor.view_mut();
        for i in 0..shape[0] {
            for j in 0..shape[1] {
                view.set(i, j, f(i, j));
            }
        }
        tensor
    }

    /// From bytes; `None` where their number does not fit shape and dtype.
    pub fn from_bytes(dtype: DType, shape: [usize; 2], bytes: Vec<u8>) -> Option<Self> {
        let count = shape[0].checked_mul(shape[1])?.checked_mul(dtype.size())?;
        (bytes.len() == count).then_some(HostTensor {
            dtype,
            shape,
            bytes,
        })
    }

    /// Storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The row-major bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A view to read.
    pub fn view(&self) -> MatRef<'_> {
        let strides = [self.shape[1] as isize, 1];
        // SAFETY: the constructors keep rows * cols elements of `dtype` in `bytes`, which is
        // borrowed; any bits are a value of each dtype.
        unsafe {
            MatRef::from_raw(
                self.bytes.as_ptr(),
                self.shape,
                strides,
                self.dtype,
                Location::Host,
            )
        }
    }

    /// A view to write.
    pub fn view_mut(&mut self) -> MatMut<'_> {
        let strides = [self.shape[1] as isize, 1];
        let ptr = self.bytes.as_mut_ptr();
        // SAFETY: as in `view`, borrowed mutably; row-major strides reach each element once.
        unsafe { MatMut::from_raw(ptr, self.shape, strides, self.dtype, Location::Host) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_outside_of_their_slice_are_refused() {
        let data = [0.0f64; 6];
        assert!(MatRef::new(&data, [2, 3]).is_ok());
        assert!(MatRef::new(&data, [3, 3]).is_err());
        assert!(MatRef::new(&data, [0, 3]).is_err());
        assert!(MatRef::strided(&data, [2, 2], [usize::MAX, 1]).is_err());
    }

    #[test]
    fn mutable_views_reach_each_element_once() {
        let mut data = [0.0f32; 12];
        for (shape, strides, ok) in [
            ([3, 4], [4, 1], true),
            ([3, 4], [1, 3], true),
            ([2, 2], [6, 2], true),
            ([3, 4], [3, 1], false),
            ([3, 4], [0, 1], false),
            ([1, 4], [0, 1], true),
            ([2, 2], [1, 1], false),
        ] {
            let view = MatMut::strided(&mut data, shape, strides);
            assert_eq!(view.is_ok(), ok, "{shape:?} {strides:?}");
        }
    }

    /// A hair above the middle between two numbers, where the hair is far below f32's last place.
    #[test]
    fn short_types_round_what_is_just_above_a_tie_up() {
        for dtype in [DType::Bf16, DType::F16] {
            let tie = 1.0 + dtype.unit_roundoff();
            for hair in [
                2f64.powi(-22),
                2f64.powi(-23),
                2f64.powi(-40),
                2f64.powi(-52),
            ] {
                assert_eq!(dtype.round(tie), 1.0);
                assert_eq!(dtype.round(tie + hair), 1.0 + 2.0 * dtype.unit_roundoff());
                assert_eq!(dtype.round(tie - hair), 1.0);
            }
            assert_eq!(dtype.round(1e-300), 0.0);
            assert_eq!(dtype.round(-1e300), f64::NEG_INFINITY);
        }
    }

    #[test]
    fn every_dtype_rounds_as_it_stores() {
        for dtype in DType::PARAMETERS {
            let x = 1.0 / 3.0;
            let tensor = HostTensor::from_fn(dtype, [2, 3], |i, j| x * (1 + i + j) as f64);
            assert_eq!(tensor.view().get(1, 2), dtype.round(x * 4.0));
            let error = (dtype.round(x) - x).abs() / x;
            assert!(error <= dtype.unit_roundoff(), "{dtype}: {error}");
        }
    }
}
