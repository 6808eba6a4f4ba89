//! Borrowed memory as thin tiles.
//!
//! Both factors are seen as thin matrices of r rows and a long dimension: A as it is, B as its
//! transpose. A view copies 64 columns of that into strips and back, whatever the strides, the
//! alignment and the storage type are. All unsafe code of this crate is in this module.
//!
//! A [`ViewRef`] and a [`ViewMut`] are made from core's `MatRef` and `MatMut`, whose constructors
//! guarantee that every element lies in memory that may be read, and for `MatMut` written through
//! that view alone, while the view lives. They keep the lifetime of what they were made from. A
//! `ViewMut` is not `Copy`; threads get disjoint parts of it by [`Splittable::split`].

use std::marker::PhantomData;
use std::ops::Range;

use half::{bf16, f16};
use lora_pro_core::{Error, Location, MatMut, MatRef};

use crate::NAME;
use crate::panel::folded;
use crate::parallel::{CHUNK, Splittable};
use crate::rounding::Round;
use crate::simd::{Isa, Real, Strip, WIDTH};
use crate::simd_level::{Kernel, vectorized};
use crate::storage::{Storage, Stored};

/// Columns between the tile that is loaded and what is prefetched.
const AHEAD: usize = 2 * WIDTH;

/// Address, shape and strides of a borrowed `rows` x `len` matrix; without a lifetime, and
/// therefore private to this module.
#[derive(Clone, Copy)]
struct RawView {
    ptr: *mut u8,
    rows: usize,
    len: usize,
    /// Bytes from row to row.
    down: isize,
    /// Bytes from column to column.
    along: isize,
    storage: Storage,
}

/// A thin matrix to read.
#[derive(Clone, Copy)]
pub(crate) struct ViewRef<'a> {
    raw: RawView,
    borrow: PhantomData<&'a [u8]>,
}

/// A thin matrix, or a part of one, to read and write.
pub(crate) struct ViewMut<'a> {
    raw: RawView,
    /// Number of the first element in the whole matrix, row by row: what its random number follows
    /// from, in whatever parts the matrix is written.
    first_entry: usize,
    /// Columns of the whole matrix.
    whole_len: usize,
    borrow: PhantomData<&'a mut [u8]>,
}

// SAFETY: a `ViewRef` only reads, and what it borrows cannot be written while it lives.
unsafe impl Send for ViewRef<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for ViewRef<'_> {}
// SAFETY: a `ViewMut` has exclusive access to its elements, so it may move between threads.
unsafe impl Send for ViewMut<'_> {}
// SAFETY: shared references to a `ViewMut` only read.
unsafe impl Sync for ViewMut<'_> {}

impl<'a> ViewRef<'a> {
    /// A matrix as it lies.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for device memory and for bytes.
    pub(crate) fn of(matrix: &MatRef<'a>) -> Result<Self, Error> {
        let raw = RawView::of(matrix.as_ptr().cast_mut(), matrix)?;
        Ok(ViewRef {
            raw,
            borrow: PhantomData,
        })
    }

    /// The transpose.
    pub(crate) fn transposed(self) -> Self {
        let raw = self.raw.transposed();
        ViewRef { raw, ..self }
    }

    /// A vector in rows, as its state is.
    pub(crate) fn folded(self) -> Self {
        let raw = self.raw.folded();
        ViewRef { raw, ..self }
    }

    pub(crate) fn rows(&self) -> usize {
        self.raw.rows
    }

    /// Columns: the long dimension.
    pub(crate) fn len(&self) -> usize {
        self.raw.len
    }

    pub(crate) fn storage(&self) -> Storage {
        self.raw.storage
    }

    /// Number of tiles along the columns.
    pub(crate) fn tiles(&self) -> usize {
        self.raw.len.div_ceil(WIDTH)
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
}

impl<'a> ViewMut<'a> {
    /// A matrix as it lies.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for device memory and for bytes.
    pub(crate) fn of(matrix: &'a mut MatMut<'_>) -> Result<Self, Error> {
        let raw = RawView::of(matrix.as_mut_ptr(), &matrix.view())?;
        Ok(Self::whole(raw))
    }

    /// The transpose of a matrix.
    ///
    /// # Errors
    /// As for [`ViewMut::of`].
    pub(crate) fn transpose_of(matrix: &'a mut MatMut<'_>) -> Result<Self, Error> {
        let raw = RawView::of(matrix.as_mut_ptr(), &matrix.view())?;
        Ok(Self::whole(raw.transposed()))
    }

    fn whole(raw: RawView) -> Self {
        ViewMut {
            raw,
            first_entry: 0,
            whole_len: raw.len,
            borrow: PhantomData,
        }
    }

    /// The same elements, to read.
    #[inline(always)]
    pub(crate) fn as_ref(&self) -> ViewRef<'_> {
        ViewRef {
            raw: self.raw,
            borrow: PhantomData,
        }
    }

    /// The same elements, for a shorter time.
    pub(crate) fn reborrow(&mut self) -> ViewMut<'_> {
        ViewMut {
            raw: self.raw,
            first_entry: self.first_entry,
            whole_len: self.whole_len,
            borrow: PhantomData,
        }
    }

    /// A whole vector in rows, as its state is.
    pub(crate) fn folded(self) -> Self {
        Self::whole(self.raw.folded())
    }

    /// Rounds some rows of a tile into the memory.
    #[inline(always)]
    pub(crate) fn store<S: Isa, T: Real>(
        &mut self,
        simd: S,
        rows: Range<usize>,
        tile: usize,
        strips: &[Strip<T>],
        round: Round,
    ) {
        vectorized(
            simd,
            Store {
                view: self.reborrow(),
                rows,
                tile,
                strips,
                round,
            },
        );
    }

    /// The rows before and from `row`. No element is in both.
    pub(crate) fn split_at_row(self, row: usize) -> (Self, Self) {
        let raw = self.raw;
        let row = row.min(raw.rows);
        let upper = RawView { rows: row, ..raw };
        let lower = RawView {
            ptr: raw.at(row, 0),
            rows: raw.rows - row,
            ..raw
        };
        let first_entry = self.first_entry + row * self.whole_len;
        let lower = ViewMut {
            raw: lower,
            first_entry,
            ..self
        };
        (ViewMut { raw: upper, ..self }, lower)
    }

    /// The columns before and from `column`. No element is in both.
    fn split_at_column(self, column: usize) -> (Self, Self) {
        let raw = self.raw;
        let column = column.min(raw.len);
        let left = RawView { len: column, ..raw };
        let right = RawView {
            ptr: raw.at(0, column),
            len: raw.len - column,
            ..raw
        };
        let right = ViewMut {
            raw: right,
            first_entry: self.first_entry + column,
            ..self
        };
        (ViewMut { raw: left, ..self }, right)
    }
}

/// In chunks of tiles.
impl Splittable for ViewMut<'_> {
    fn count(&self) -> usize {
        self.raw.len.div_ceil(CHUNK * WIDTH)
    }

    fn split(self, at: usize) -> (Self, Self) {
        self.split_at_column(at * CHUNK * WIDTH)
    }
}

impl<'a> ViewRef<'a> {
    #[inline(always)]
    fn load_as<S: Isa, E: Stored, T: Real>(
        self,
        simd: S,
        rows: Range<usize>,
        tile: usize,
        out: &mut [Strip<T>],
    ) {
        let size = size_of::<E::Bytes>() as isize;
        let columns = self.raw.columns(tile);
        assert!(rows.end <= self.raw.rows && rows.len() <= out.len() && !columns.is_empty());
        if columns.len() < WIDTH {
            out[..rows.len()].fill(Strip::all(T::default()));
        }
        if self.raw.along == size {
            for (strip, row) in out.iter_mut().zip(rows) {
                self.raw
                    .prefetch(row, columns.start + AHEAD, WIDTH * size_of::<E::Bytes>());
                // SAFETY: a run of columns of one row, inside of the shape (asserted).
                let run = unsafe { self.run::<E>(row, columns.start, columns.len()) };
                for (x, bytes) in strip.iter_mut().zip(run) {
                    *x = E::decode(*bytes);
                }
            }
        } else if self.raw.down == size {
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
                    self.raw
                        .prefetch(rows.start + k, columns.start + c + i + AHEAD, 1);
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

    /// Contiguous elements of one row.
    ///
    /// # Safety
    /// They lie inside of the shape, and `along` is the element's size (or `count` is 1).
    #[inline(always)]
    unsafe fn run<E: Stored>(self, row: usize, column: usize, count: usize) -> &'a [E::Bytes] {
        let at = self.raw.at(row, column);
        // SAFETY: these bytes may be read for 'a, by what the view was made from; the caller keeps
        // inside of the shape; byte arrays have no alignment.
        unsafe { std::slice::from_raw_parts(at.cast(), count) }
    }
}

impl ViewMut<'_> {
    #[inline(always)]
    fn store_as<S: Isa, E: Stored, T: Real>(
        &mut self,
        simd: S,
        rows: Range<usize>,
        tile: usize,
        strips: &[Strip<T>],
        round: Round,
    ) {
        let size = size_of::<E::Bytes>() as isize;
        let columns = self.raw.columns(tile);
        assert!(rows.end <= self.raw.rows && rows.len() <= strips.len() && !columns.is_empty());
        if let Round::Stochastic(seed) = round {
            for (strip, row) in strips.iter().zip(rows) {
                for (x, column) in strip.iter().zip(columns.clone()) {
                    let random = seed.at(self.first_entry + row * self.whole_len + column);
                    // SAFETY: one element, inside of the shape (asserted).
                    let run = unsafe { self.run_mut::<E>(row, column, 1) };
                    run[0] = E::encode_stochastic(*x, random);
                }
            }
        } else if self.raw.along == size {
            for (strip, row) in strips.iter().zip(rows) {
                // SAFETY: a run of columns of one row, inside of the shape (asserted).
                let run = unsafe { self.run_mut::<E>(row, columns.start, columns.len()) };
                for (x, bytes) in strip.iter().zip(run) {
                    *bytes = E::encode(*x);
                }
            }
        } else if self.raw.down == size {
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
        &mut self,
        simd: S,
        rows: Range<usize>,
        columns: Range<usize>,
        strips: &[Strip<T>],
    ) {
        let mut view = self.reborrow();
        view.raw = view.raw.transposed();
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

    /// Contiguous elements of one row, to write.
    ///
    /// # Safety
    /// As for [`ViewRef::run`].
    #[inline(always)]
    unsafe fn run_mut<E: Stored>(
        &mut self,
        row: usize,
        column: usize,
        count: usize,
    ) -> &mut [E::Bytes] {
        let at = self.raw.at(row, column);
        // SAFETY: as in `ViewRef::run`; and this view alone reaches these bytes.
        unsafe { std::slice::from_raw_parts_mut(at.cast(), count) }
    }
}

impl RawView {
    fn of(ptr: *mut u8, matrix: &MatRef<'_>) -> Result<Self, Error> {
        let dtype = matrix.dtype();
        let host = matrix.location() == Location::Host;
        let Some(storage) = Storage::of(dtype).filter(|_| host) else {
            let what = format!("{dtype} in {:?} memory", matrix.location());
            return Err(Error::Unsupported {
                subject: "a tensor".into(),
                backend: NAME.into(),
                what,
            });
        };
        let size = dtype.size() as isize;
        let [down, along] = matrix.strides().map(|stride| stride * size);
        Ok(RawView {
            ptr,
            rows: matrix.rows(),
            len: matrix.cols(),
            down,
            along,
            storage,
        })
    }

    fn transposed(self) -> Self {
        RawView {
            rows: self.len,
            len: self.rows,
            down: self.along,
            along: self.down,
            ..self
        }
    }

    /// The same elements in the same order.
    fn folded(self) -> Self {
        let [rows, len] = folded([self.rows, self.len]);
        let down = if self.rows == 1 {
            len as isize * self.along
        } else {
            self.down
        };
        RawView {
            rows,
            len,
            down,
            ..self
        }
    }

    /// The columns of a tile.
    fn columns(&self, tile: usize) -> Range<usize> {
        tile * WIDTH..self.len.min((tile + 1) * WIDTH)
    }

    /// Asks for some bytes that a later tile will need. The processor's own prefetchers apply_update_rule one
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

    /// Address of an element, or of a place where there is none.
    #[inline(always)]
    fn at(self, row: usize, column: usize) -> *mut u8 {
        self.ptr
            .wrapping_offset(row as isize * self.down + column as isize * self.along)
    }
}

struct Load<'k, T> {
    view: ViewRef<'k>,
    rows: Range<usize>,
    tile: usize,
    out: &'k mut [Strip<T>],
}

impl<T: Real> Kernel for Load<'_, T> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Load {
            view,
            rows,
            tile,
            out,
        } = self;
        match view.raw.storage {
            Storage::F64 => view.load_as::<S, f64, T>(simd, rows, tile, out),
            Storage::F32 => view.load_as::<S, f32, T>(simd, rows, tile, out),
            Storage::Bf16 => view.load_as::<S, bf16, T>(simd, rows, tile, out),
            Storage::F16 => view.load_as::<S, f16, T>(simd, rows, tile, out),
        }
    }
}

struct Store<'k, T> {
    view: ViewMut<'k>,
    rows: Range<usize>,
    tile: usize,
    strips: &'k [Strip<T>],
    round: Round,
}

impl<T: Real> Kernel for Store<'_, T> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Store {
            mut view,
            rows,
            tile,
            strips,
            round,
        } = self;
        match view.raw.storage {
            Storage::F64 => view.store_as::<S, f64, T>(simd, rows, tile, strips, round),
            Storage::F32 => view.store_as::<S, f32, T>(simd, rows, tile, strips, round),
            Storage::Bf16 => view.store_as::<S, bf16, T>(simd, rows, tile, strips, round),
            Storage::F16 => view.store_as::<S, f16, T>(simd, rows, tile, strips, round),
        }
    }
}
