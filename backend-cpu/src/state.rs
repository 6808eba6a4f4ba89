//! The state tensors of core's layout as memory of this backend, and their bytes for checkpoints.

use bytemuck::{Pod, cast_slice};
use half::bf16;
use lora_pro_core::backend::{StateForm, StateKind, StateTensor};
use lora_pro_core::{DType, Error};

use crate::NAME;
use crate::panel::{Panel, WideMatrix, folded};

/// One state tensor in memory; the names say form and storage type.
#[derive(Clone, Debug)]
pub(crate) enum StateMemory {
    /// A thin f32 matrix.
    ThinF32(Panel<f32>),
    /// A thin f64 matrix.
    ThinF64(Panel<f64>),
    /// As large as W, or as an unpaired parameter.
    WideF32(WideMatrix<f32>),
    /// The same in f64.
    WideF64(WideMatrix<f64>),
    /// The same in bf16.
    WideBf16(WideMatrix<bf16>),
    /// The same as 8-bit codes.
    Codes(WideMatrix<u8>),
    /// One number for each block of codes.
    Scales(Vec<f32>),
}

/// How a tensor is laid out in memory.
enum MemoryLayout {
    /// r x n: as it is.
    Thin,
    /// m x r: transposed.
    ThinTransposed,
    /// Like W.
    Wide,
    /// One number per block.
    Scales,
}

fn layout_of(kind: StateKind) -> MemoryLayout {
    match kind.form() {
        StateForm::A | StateForm::Row => MemoryLayout::Thin,
        StateForm::B | StateForm::Column => MemoryLayout::ThinTransposed,
        StateForm::Weight | StateForm::Param => MemoryLayout::Wide,
        StateForm::WeightBlocks => MemoryLayout::Scales,
    }
}

impl StateMemory {
    /// Zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] for what is as large as W; [`Error::Unsupported`] for a storage type.
    pub(crate) fn zeros(tensor: &StateTensor) -> Result<StateMemory, Error> {
        let shape = in_memory(tensor).shape;
        let [rows, cols] = shape;
        Ok(match (layout_of(tensor.kind), tensor.dtype) {
            (MemoryLayout::Thin, DType::F32) => StateMemory::ThinF32(Panel::zeros(rows, cols)),
            (MemoryLayout::Thin, DType::F64) => StateMemory::ThinF64(Panel::zeros(rows, cols)),
            (MemoryLayout::ThinTransposed, DType::F32) => {
                StateMemory::ThinF32(Panel::zeros(cols, rows))
            }
            (MemoryLayout::ThinTransposed, DType::F64) => {
                StateMemory::ThinF64(Panel::zeros(cols, rows))
            }
            (MemoryLayout::Wide, DType::F32) => StateMemory::WideF32(wide(tensor, shape)?),
            (MemoryLayout::Wide, DType::F64) => StateMemory::WideF64(wide(tensor, shape)?),
            (MemoryLayout::Wide, DType::Bf16) => StateMemory::WideBf16(wide(tensor, shape)?),
            (MemoryLayout::Wide, DType::U8) => StateMemory::Codes(wide(tensor, shape)?),
            (MemoryLayout::Scales, DType::F32) => StateMemory::Scales(vec![0.0; rows * cols]),
            (_, dtype) => {
                return Err(Error::Unsupported {
                    subject: format!("state tensor `{}`", tensor.name()),
                    backend: NAME.into(),
                    what: format!("storage type {dtype}"),
                });
            }
        })
    }

    /// The row-major bytes.
    pub(crate) fn bytes(&self, tensor: &StateTensor) -> Vec<u8> {
        let tensor = &in_memory(tensor);
        let transposed = matches!(layout_of(tensor.kind), MemoryLayout::ThinTransposed);
        match self {
            StateMemory::ThinF32(x) => thin_bytes(x, tensor, transposed),
            StateMemory::ThinF64(x) => thin_bytes(x, tensor, transposed),
            StateMemory::WideF32(x) => row_major(tensor, |i, j| x.get(i, j)),
            StateMemory::WideF64(x) => row_major(tensor, |i, j| x.get(i, j)),
            StateMemory::WideBf16(x) => row_major(tensor, |i, j| x.get(i, j).to_bits()),
            StateMemory::Codes(x) => row_major(tensor, |i, j| x.get(i, j)),
            StateMemory::Scales(x) => cast_slice(x).to_vec(),
        }
    }

    /// The tensor with these row-major bytes.
    pub(crate) fn from_bytes(tensor: &StateTensor, bytes: &[u8]) -> Result<StateMemory, Error> {
        tensor.check_bytes(bytes)?;
        let transposed = matches!(layout_of(tensor.kind), MemoryLayout::ThinTransposed);
        let mut memory = StateMemory::zeros(tensor)?;
        let tensor = &in_memory(tensor);
        match &mut memory {
            StateMemory::ThinF32(x) => thin_from(x, tensor, transposed, bytes),
            StateMemory::ThinF64(x) => thin_from(x, tensor, transposed, bytes),
            StateMemory::WideF32(x) => entries(tensor, bytes, |i, j, value| x.set(i, j, value)),
            StateMemory::WideF64(x) => entries(tensor, bytes, |i, j, value| x.set(i, j, value)),
            StateMemory::WideBf16(x) => {
                entries(tensor, bytes, |i, j, value| {
                    x.set(i, j, bf16::from_bits(value))
                });
            }
            StateMemory::Codes(x) => entries(tensor, bytes, |i, j, value| x.set(i, j, value)),
            StateMemory::Scales(x) => {
                let [_, cols] = tensor.shape;
                entries(tensor, bytes, |i, j, value| x[i * cols + j] = value);
            }
        }
        Ok(memory)
    }
}

impl StateMemory {
    /// Row, column and value of the first entry that is not finite.
    pub(crate) fn non_finite(&self, tensor: &StateTensor) -> Option<(usize, usize, f64)> {
        let transposed = matches!(layout_of(tensor.kind), MemoryLayout::ThinTransposed);
        let thin = |i: usize, j: usize| if transposed { (j, i) } else { (i, j) };
        let [rows, cols] = in_memory(tensor).shape;
        let get = |i: usize, j: usize| {
            let (row, column) = thin(i, j);
            match self {
                StateMemory::ThinF32(x) => x.get(row, column).into(),
                StateMemory::ThinF64(x) => x.get(row, column),
                StateMemory::WideF32(x) => x.get(i, j).into(),
                StateMemory::WideF64(x) => x.get(i, j),
                StateMemory::WideBf16(x) => x.get(i, j).to_f64(),
                StateMemory::Codes(_) => 0.0,
                StateMemory::Scales(x) => x[i * cols + j].into(),
            }
        };
        let entries = (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j)));
        entries
            .map(|(i, j)| (i * cols + j, get(i, j)))
            .find(|(_, value)| !value.is_finite())
            .map(|(k, value)| (k / tensor.shape[1], k % tensor.shape[1], value))
    }
}

/// The tensor in the shape that it has in memory: an unpaired vector is folded. Its bytes are the same.
fn in_memory(tensor: &StateTensor) -> StateTensor {
    let mut tensor = *tensor;
    if tensor.kind.form() == StateForm::Param {
        tensor.shape = folded(tensor.shape);
    }
    tensor
}

fn wide<W: Copy + Default>(
    tensor: &StateTensor,
    shape: [usize; 2],
) -> Result<WideMatrix<W>, Error> {
    WideMatrix::zeros(shape).map_err(|error| Error::OutOfMemory {
        backend: NAME.into(),
        reason: format!(
            "state tensor `{}` of {} x {}: {error}",
            tensor.name(),
            tensor.shape[0],
            tensor.shape[1]
        ),
    })
}

fn thin_bytes<T: Pod + Default>(x: &Panel<T>, tensor: &StateTensor, transposed: bool) -> Vec<u8> {
    match transposed {
        false => row_major(tensor, |i, j| x.get(i, j)),
        true => row_major(tensor, |i, j| x.get(j, i)),
    }
}

fn thin_from<T: Pod + Default>(
    x: &mut Panel<T>,
    tensor: &StateTensor,
    transposed: bool,
    bytes: &[u8],
) {
    match transposed {
        false => entries(tensor, bytes, |i, j, value| x.set(i, j, value)),
        true => entries(tensor, bytes, |i, j, value| x.set(j, i, value)),
    }
}

/// Checkpoints are little-endian; so is every machine that this crate has SIMD code for, and
/// elsewhere the bytes of each element are reversed.
fn row_major<E: Pod>(tensor: &StateTensor, get: impl Fn(usize, usize) -> E) -> Vec<u8> {
    let [rows, cols] = tensor.shape;
    let mut bytes = Vec::with_capacity(tensor.bytes());
    for i in 0..rows {
        for j in 0..cols {
            let value = get(i, j);
            let start = bytes.len();
            bytes.extend_from_slice(bytemuck::bytes_of(&value));
            if cfg!(target_endian = "big") {
                bytes[start..].reverse();
            }
        }
    }
    bytes
}

fn entries<E: Pod>(tensor: &StateTensor, bytes: &[u8], mut set: impl FnMut(usize, usize, E)) {
    let [_, cols] = tensor.shape;
    for (k, chunk) in bytes.chunks_exact(size_of::<E>()).enumerate() {
        let mut value = E::zeroed();
        let raw = bytemuck::bytes_of_mut(&mut value);
        raw.copy_from_slice(chunk);
        if cfg!(target_endian = "big") {
            raw.reverse();
        }
        set(k / cols, k % cols, value);
    }
}
