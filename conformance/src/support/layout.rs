//! A matrix laid out in memory as others might have it, with canaries around and between.

use lora_pro_core::{DType, HostTensor, Location, MatMut, MatRef};

/// What stands where no element is: NaN in every float type, if it is read.
const CANARY: u8 = 0xFF;

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Row-major without gaps.
    Rows,
    /// Column-major without gaps.
    Columns,
    /// Row-major as a part of longer rows.
    LongRows,
    /// Column-major as a part of longer columns.
    LongColumns,
    /// Row-major from the second element of aligned memory.
    ShiftedRows,
    /// Column-major from there.
    ShiftedColumns,
    /// Row-major with gaps between rows and between columns.
    Odd,
    /// Row-major from an odd address.
    Unaligned,
    /// Column-major with gaps, from an odd address.
    OddColumns,
    /// Both strides negative.
    Reversed,
}

/// All of them.
pub const LAYOUTS: [Layout; 10] = [
    Layout::Rows,
    Layout::Columns,
    Layout::ShiftedRows,
    Layout::ShiftedColumns,
    Layout::LongRows,
    Layout::LongColumns,
    Layout::Odd,
    Layout::Unaligned,
    Layout::OddColumns,
    Layout::Reversed,
];

impl Layout {
    /// Whether elements are at addresses that no machine instruction reads them from.
    pub fn is_misaligned(self) -> bool {
        matches!(self, Layout::Unaligned | Layout::OddColumns)
    }
}

/// Bytes that hold a matrix and canaries.
#[derive(Clone, Debug, PartialEq)]
pub struct StridedBuffer {
    /// All of them: also for copies in memory of another kind.
    pub bytes: Vec<u8>,
    /// Byte of element (0, 0).
    pub origin: usize,
    /// In elements.
    pub strides: [isize; 2],
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Storage type.
    pub dtype: DType,
}

/// Elements from one row (or column) of aligned memory to the next: whole vectors of every machine,
/// of which the last one is cut off.
fn longer(len: usize) -> isize {
    (len.next_multiple_of(8) + 16) as isize
}

impl StridedBuffer {
    /// Room for a tensor, with its elements in it.
    pub fn new(tensor: &HostTensor, layout: Layout) -> Self {
        let ([rows, cols], size) = (tensor.shape(), tensor.dtype().size());
        let (r, c) = (rows as isize, cols as isize);
        let strides = match layout {
            Layout::Rows | Layout::ShiftedRows | Layout::Unaligned => [c, 1],
            Layout::Columns | Layout::ShiftedColumns => [1, r],
            Layout::LongRows => [longer(cols), 1],
            Layout::LongColumns => [1, longer(rows)],
            Layout::Odd => [3 * c + 5, 3],
            Layout::OddColumns => [2, 2 * r + 3],
            Layout::Reversed => [-c, -1],
        };
        let span = (r - 1) * strides[0].abs() + (c - 1) * strides[1].abs();
        let margin = 64 * size;
        let start = match layout {
            Layout::ShiftedRows | Layout::ShiftedColumns => margin + size,
            _ => margin + usize::from(layout.is_misaligned()),
        };
        let back = (r - 1) * strides[0].min(0) + (c - 1) * strides[1].min(0);
        let mut laid = StridedBuffer {
            bytes: vec![CANARY; start + (span as usize + 1) * size + margin],
            origin: start + back.unsigned_abs() * size,
            strides,
            shape: tensor.shape(),
            dtype: tensor.dtype(),
        };
        laid.put(tensor);
        laid
    }

    /// Replaces the elements.
    pub fn put(&mut self, tensor: &HostTensor) {
        let (cols, size) = (self.shape[1], self.dtype.size());
        for (k, element) in tensor.bytes().chunks(size).enumerate() {
            let at = self.at(k / cols, k % cols);
            self.bytes[at..at + size].copy_from_slice(element);
        }
    }

    /// First byte of an element.
    fn at(&self, i: usize, j: usize) -> usize {
        let offset = i as isize * self.strides[0] + j as isize * self.strides[1];
        let offset = offset * self.dtype.size() as isize;
        self.origin
            .checked_add_signed(offset)
            .expect("inside of `bytes`")
    }

    /// A view to read.
    pub fn view(&self) -> MatRef<'_> {
        // SAFETY: `new` made room for every element, and any bits are a value of each dtype.
        unsafe {
            let ptr = self.bytes.as_ptr().add(self.origin);
            MatRef::from_raw(ptr, self.shape, self.strides, self.dtype, Location::Host)
        }
    }

    /// A view to write.
    pub fn view_mut(&mut self) -> MatMut<'_> {
        // SAFETY: as in `view`, borrowed mutably; the strides of `new` reach each element once.
        unsafe {
            let ptr = self.bytes.as_mut_ptr().add(self.origin);
            MatMut::from_raw(ptr, self.shape, self.strides, self.dtype, Location::Host)
        }
    }

    /// The elements, row-major.
    pub fn tensor(&self) -> HostTensor {
        let size = self.dtype.size();
        let [rows, cols] = self.shape;
        let elements = (0..rows * cols).flat_map(|k| {
            let at = self.at(k / cols, k % cols);
            self.bytes[at..at + size].to_vec()
        });
        HostTensor::from_bytes(self.dtype, self.shape, elements.collect()).expect("all elements")
    }

    /// Whether every byte that is no element's is as it was.
    pub fn guards_intact(&self) -> bool {
        let mut rest = self.bytes.clone();
        for k in 0..self.shape[0] * self.shape[1] {
            let at = self.at(k / self.shape[1], k % self.shape[1]);
            rest[at..at + self.dtype.size()].fill(CANARY);
        }
        rest.iter().all(|byte| *byte == CANARY)
    }
}
