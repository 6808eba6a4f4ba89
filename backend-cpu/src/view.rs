//! Borrowed memory as thin tiles.
//!
//! Both factors are seen as thin matrices of r rows and a long dimension: A as it is, B as its
//! transpose. A [`View`] copies 64 columns of that into strips and back, whatever the strides,
//! the alignment and the storage type are. All unsafe code of this crate is in this module.
//!
//! Why it holds: a view is made from core's `MatRef` or `MatMut`, whose constructors guarantee
//! that every element lies in memory that may be read (and, for `MatMut`, written by nobody else)
//! while the step runs. The backend keeps views only for that long, gives disjoint columns or rows
//! to its threads, and never asks for an element outside of the shape (asserted here).

use std::ops::Range;

use bytemuck::Pod;
use half::{bf16, f16};
use lora_pro_core::{DType, MatMut, MatRef};

use crate::path::{Job, vectorized};
use crate::rounding::{Round, nearest_bf16, stochastic_bf16, stochastic_f16};
use crate::simd::{Isa, Real, Strip, WIDTH};

/// Columns between the tile that is loaded and what is prefetched.
const AHEAD: usize = 2 * WIDTH;

/// A borrowed thin matrix: `rows` x `len`.
#[derive(Clone, Copy)]
pub(crate) struct View {
    ptr: *mut u8,
    /// Rows.
    pub(crate) rows: usize,
    /// Columns: the long dimension.
    pub(crate) len: usize,
    /// Bytes from row to row.
    down: isize,
    /// Bytes from column to column.
    along: isize,
    /// Storage type.
    pub(crate) dtype: DType,
}

// SAFETY: see the module's head: reads are shared, writes go to disjoint elements.
unsafe impl Send for View {}
// SAFETY: as for `Send`.
unsafe impl Sync for View {}

impl View {
    /// A matrix as it lies.
    pub(crate) fn of(matrix: &MatRef<'_>) -> Self {
        let size = matrix.dtype().size() as isize;
        let [down, along] = matrix.strides().map(|stride| stride * size);
        View {
            ptr: matrix.as_ptr().cast_mut(),
            rows: matrix.rows(),
            len: matrix.cols(),
            down,
            along,
            dtype: matrix.dtype(),
        }
    }

    /// A matrix to be written.
    pub(crate) fn of_mut(matrix: &mut MatMut<'_>) -> Self {
        View {
            ptr: matrix.as_mut_ptr(),
            ..Self::of(&matrix.view())
        }
    }

    /// The transpose.
    pub(crate) fn transposed(self) -> Self {
        View {
            rows: self.len,
            len: self.rows,
            down: self.along,
            along: self.down,
            ..self
        }
    }

    /// Number of tiles along the columns.
    pub(crate) fn tiles(&self) -> usize {
        self.len.div_ceil(WIDTH)
    }

    /// The columns of a tile.
    fn columns(&self, tile: usize) -> Range<usize> {
        tile * WIDTH..self.len.min((tile + 1) * WIDTH)
    }

    /// Copies some rows of a tile; columns past the end become 0.
    ///
    /// A function of its own for each instruction set: it is used in many places.
    #[inline(always)]
    pub(crate) fn load<S: Isa, T: Real>(
        self,
        simd: S,
        rows: Range<usize>,
        tile: usize,
        out: &mut [Strip<T>],
    ) {
        vectorized(
            simd,
            Load {
                view: self,
                rows,
                tile,
                out,
            },
        );
    }

    /// Rounds some rows of a tile into the memory.
    #[inline(always)]
    pub(crate) fn store<S: Isa, T: Real>(
        self,
        simd: S,
        rows: Range<usize>,
        tile: usize,
        strips: &[Strip<T>],
        round: Round,
    ) {
        vectorized(
            simd,
            Store {
                view: self,
                rows,
                tile,
                strips,
                round,
            },
        );
    }

    #[inline(always)]
    fn load_as<S: Isa, E: Stored, T: Real>(
        self,
        simd: S,
        rows: Range<usize>,
        tile: usize,
        out: &mut [Strip<T>],
    ) {
        let size = size_of::<E::Bytes>() as isize;
        let columns = self.columns(tile);
        assert!(rows.end <= self.rows && rows.len() <= out.len() && !columns.is_empty());
        if columns.len() < WIDTH {
            out[..rows.len()].fill(Strip::all(T::default()));
        }
        if self.along == size {
            for (strip, row) in out.iter_mut().zip(rows) {
                self.prefetch(row, columns.start + AHEAD, WIDTH * size_of::<E::Bytes>());
                // SAFETY: a run of columns of one row, inside of the shape (asserted).
                let run = unsafe { self.run::<E>(row, columns.start, columns.len()) };
                for (x, bytes) in strip.iter_mut().zip(run) {
                    *x = E::decode(*bytes);
                }
            }
        } else if self.down == size {
            self.load_transposed::<S, E, T>(simd, rows, columns, out);
        } else {
            for (strip, row) in out.iter_mut().zip(rows) {
                for (x, column) in strip.iter_mut().zip(columns.clone()) {
                    // SAFETY: one element, inside of the shape (asserted).
                    *x = E::decode(unsafe { self.run::<E>(row, column, 1) }[0]);
                }
            }
        }
    }

    /// Where columns are contiguous: blocks of 8 x 8, the edges one by one.
    #[inline(always)]
    fn load_transposed<S: Isa, E: Stored, T: Real>(
        self,
        simd: S,
        rows: Range<usize>,
        columns: Range<usize>,
        out: &mut [Strip<T>],
    ) {
        let view = self.transposed();
        let (whole_rows, whole_columns) = (rows.len() / 8 * 8, columns.len() / 8 * 8);
        for c in (0..whole_columns).step_by(8) {
            for k in (0..whole_rows).step_by(8) {
                let mut block = [[T::default(); 8]; 8];
                for (i, line) in block.iter_mut().enumerate() {
                    self.prefetch(rows.start + k, columns.start + c + i + AHEAD, 1);
                    // SAFETY: a run of rows of one column, inside of the shape (asserted).
                    let run = unsafe { view.run::<E>(columns.start + c + i, rows.start + k, 8) };
                    for (x, bytes) in line.iter_mut().zip(run) {
                        *x = E::decode(*bytes);
                    }
                }
                let block = T::transpose(simd, block);
                for (strip, line) in out[k..k + 8].iter_mut().zip(&block) {
                    strip[c..c + 8].copy_from_slice(line);
                }
            }
        }
        // What no block covers: the last rows of all columns, or the last columns only.
        let first = if whole_rows == rows.len() {
            whole_columns
        } else {
            0
        };
        for c in first..columns.len() {
            let from = if c < whole_columns { whole_rows } else { 0 };
            let (start, count) = (rows.start + from, rows.len() - from);
            // SAFETY: a run of rows of one column, inside of the shape (asserted).
            let run = unsafe { view.run::<E>(columns.start + c, start, count) };
            for (strip, bytes) in out[from..].iter_mut().zip(run) {
                strip[c] = E::decode(*bytes);
            }
        }
    }

    #[inline(always)]
    fn store_as<S: Isa, E: Stored, T: Real>(
        self,
        simd: S,
        rows: Range<usize>,
        tile: usize,
        strips: &[Strip<T>],
        round: Round,
    ) {
        let size = size_of::<E::Bytes>() as isize;
        let columns = self.columns(tile);
        assert!(rows.end <= self.rows && rows.len() <= strips.len() && !columns.is_empty());
        if let Round::Stochastic(seed) = round {
            for (strip, row) in strips.iter().zip(rows) {
                for (x, column) in strip.iter().zip(columns.clone()) {
                    let random = seed.at(row * self.len + column);
                    // SAFETY: one element, inside of the shape (asserted).
                    let run = unsafe { self.run_mut::<E>(row, column, 1) };
                    run[0] = E::encode_at(*x, random);
                }
            }
        } else if self.along == size {
            for (strip, row) in strips.iter().zip(rows) {
                // SAFETY: a run of columns of one row, inside of the shape (asserted).
                let run = unsafe { self.run_mut::<E>(row, columns.start, columns.len()) };
                for (x, bytes) in strip.iter().zip(run) {
                    *bytes = E::encode(*x);
                }
            }
        } else if self.down == size {
            self.store_transposed::<S, E, T>(simd, rows, columns, strips);
        } else {
            for (strip, row) in strips.iter().zip(rows) {
                for (x, column) in strip.iter().zip(columns.clone()) {
                    // SAFETY: one element, inside of the shape (asserted).
                    let run = unsafe { self.run_mut::<E>(row, column, 1) };
                    run[0] = E::encode(*x);
                }
            }
        }
    }

    #[inline(always)]
    fn store_transposed<S: Isa, E: Stored, T: Real>(
        self,
        simd: S,
        rows: Range<usize>,
        columns: Range<usize>,
        strips: &[Strip<T>],
    ) {
        let view = self.transposed();
        let (whole_rows, whole_columns) = (rows.len() / 8 * 8, columns.len() / 8 * 8);
        for c in (0..whole_columns).step_by(8) {
            for k in (0..whole_rows).step_by(8) {
                let mut block = [[T::default(); 8]; 8];
                for (line, strip) in block.iter_mut().zip(&strips[k..k + 8]) {
                    line.copy_from_slice(&strip[c..c + 8]);
                }
                let block = T::transpose(simd, block);
                for (i, line) in block.iter().enumerate() {
                    let (column, row) = (columns.start + c + i, rows.start + k);
                    // SAFETY: a run of rows of one column, inside of the shape (asserted).
                    let run = unsafe { view.run_mut::<E>(column, row, 8) };
                    for (bytes, x) in run.iter_mut().zip(line) {
                        *bytes = E::encode(*x);
                    }
                }
            }
        }
        let first = if whole_rows == rows.len() {
            whole_columns
        } else {
            0
        };
        for c in first..columns.len() {
            let from = if c < whole_columns { whole_rows } else { 0 };
            let count = rows.len() - from;
            // SAFETY: as above.
            let run = unsafe { view.run_mut::<E>(columns.start + c, rows.start + from, count) };
            for (bytes, strip) in run.iter_mut().zip(&strips[from..]) {
                *bytes = E::encode(strip[c]);
            }
        }
    }

    /// Asks for some bytes that a later tile will need. The processor's own prefetchers follow one
    /// stream well, and not the many short runs of a tile. Into the second-level cache: rows that lie a
    /// power of two apart share few places in the first.
    #[inline(always)]
    fn prefetch(self, row: usize, column: usize, bytes: usize) {
        #[cfg(target_arch = "x86_64")]
        for byte in (0..bytes).step_by(64) {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            let at = self.at(row, column).wrapping_add(byte);
            // SAFETY: a prefetch reads nothing that the program sees, and faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (row, column, bytes);
    }

    /// Contiguous elements of one row.
    ///
    /// # Safety
    /// They lie inside of the shape, and `along` is the element's size (or `count` is 1).
    #[inline(always)]
    unsafe fn run<'a, E: Stored>(self, row: usize, column: usize, count: usize) -> &'a [E::Bytes] {
        let at = self.at(row, column);
        // SAFETY: by the caller and by the module's head these bytes may be read during the step;
        // byte arrays have no alignment.
        unsafe { std::slice::from_raw_parts(at.cast(), count) }
    }

    /// Contiguous elements of one row, to write.
    ///
    /// # Safety
    /// As for [`View::run`]; besides, the view was made from a `MatMut`, and nobody else reads or
    /// writes these elements meanwhile.
    #[inline(always)]
    unsafe fn run_mut<'a, E: Stored>(
        self,
        row: usize,
        column: usize,
        count: usize,
    ) -> &'a mut [E::Bytes] {
        let at = self.at(row, column);
        // SAFETY: as in `run`, and exclusive by the caller.
        unsafe { std::slice::from_raw_parts_mut(at.cast(), count) }
    }

    #[inline(always)]
    fn at(self, row: usize, column: usize) -> *mut u8 {
        self.ptr
            .wrapping_offset(row as isize * self.down + column as isize * self.along)
    }
}

struct Load<'j, T> {
    view: View,
    rows: Range<usize>,
    tile: usize,
    out: &'j mut [Strip<T>],
}

impl<T: Real> Job for Load<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Load {
            view,
            rows,
            tile,
            out,
        } = self;
        match view.dtype {
            DType::F64 => view.load_as::<S, f64, T>(simd, rows, tile, out),
            DType::F32 => view.load_as::<S, f32, T>(simd, rows, tile, out),
            DType::Bf16 => view.load_as::<S, bf16, T>(simd, rows, tile, out),
            DType::F16 => view.load_as::<S, f16, T>(simd, rows, tile, out),
            // The front refuses it as a parameter's type.
            DType::U8 => {}
        }
    }
}

struct Store<'j, T> {
    view: View,
    rows: Range<usize>,
    tile: usize,
    strips: &'j [Strip<T>],
    round: Round,
}

impl<T: Real> Job for Store<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Store {
            view,
            rows,
            tile,
            strips,
            round,
        } = self;
        match view.dtype {
            DType::F64 => view.store_as::<S, f64, T>(simd, rows, tile, strips, round),
            DType::F32 => view.store_as::<S, f32, T>(simd, rows, tile, strips, round),
            DType::Bf16 => view.store_as::<S, bf16, T>(simd, rows, tile, strips, round),
            DType::F16 => view.store_as::<S, f16, T>(simd, rows, tile, strips, round),
            DType::U8 => {}
        }
    }
}

/// A storage type: how its bytes become a number and the other way round.
trait Stored {
    type Bytes: Pod;

    fn decode<T: Real>(bytes: Self::Bytes) -> T;
    /// Rounds to nearest.
    fn encode<T: Real>(x: T) -> Self::Bytes;
    /// Rounds up or down, as `random` has it.
    fn encode_at<T: Real>(x: T, random: u32) -> Self::Bytes;
}

macro_rules! stored {
    ($type:ty, $bytes:ty, $from:expr, $to:expr, $to_at:expr) => {
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
            fn encode_at<T: Real>(x: T, random: u32) -> $bytes {
                <$type>::to_ne_bytes($to_at(x, random))
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
