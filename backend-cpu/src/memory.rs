//! The state tensors of core's layout as memory of this backend, and their bytes for checkpoints.

use bytemuck::{Pod, cast_slice};
use half::bf16;
use lora_pro_core::backend::{State, StateForm, StateKind, StateTensor, foreign_buffer};
use lora_pro_core::{DType, Error};

use crate::NAME;
use crate::panel::{Block, Panel, Wide};
use crate::passes::{Moments, Shorter};
use crate::simd::Real;
use crate::spread::Slices;

/// Memory of one state tensor.
#[derive(Clone, Debug)]
pub(crate) enum Memory {
    /// A thin f32 matrix.
    Thin32(Panel<f32>),
    /// A thin f64 matrix.
    Thin64(Panel<f64>),
    /// As large as W, or as a parameter without a pair.
    Wide32(Wide<f32>),
    /// The same in f64.
    Wide64(Wide<f64>),
    /// The same in bf16.
    Wide16(Wide<bf16>),
    /// The same as 8-bit codes.
    Codes(Wide<u8>),
    /// One number for each block of codes.
    Scales(Vec<f32>),
}

/// How a tensor is laid out in memory.
enum Shape {
    /// r x n: as it is.
    Thin,
    /// m x r: transposed.
    ThinTransposed,
    /// Like W.
    Wide,
    /// One number per block.
    Scales,
}

fn shape_of(kind: StateKind) -> Shape {
    match kind.form() {
        StateForm::A | StateForm::Row => Shape::Thin,
        StateForm::B | StateForm::Column => Shape::ThinTransposed,
        StateForm::Weight | StateForm::Param => Shape::Wide,
        StateForm::WeightBlocks => Shape::Scales,
    }
}

impl Memory {
    /// Zeros.
    pub(crate) fn zeros(tensor: &StateTensor) -> Result<Memory, Error> {
        let [rows, cols] = tensor.shape;
        Ok(match (shape_of(tensor.kind), tensor.dtype) {
            (Shape::Thin, DType::F32) => Memory::Thin32(Panel::zeros(rows, cols)),
            (Shape::Thin, DType::F64) => Memory::Thin64(Panel::zeros(rows, cols)),
            (Shape::ThinTransposed, DType::F32) => Memory::Thin32(Panel::zeros(cols, rows)),
            (Shape::ThinTransposed, DType::F64) => Memory::Thin64(Panel::zeros(cols, rows)),
            (Shape::Wide, DType::F32) => Memory::Wide32(Wide::zeros(rows, cols)),
            (Shape::Wide, DType::F64) => Memory::Wide64(Wide::zeros(rows, cols)),
            (Shape::Wide, DType::Bf16) => Memory::Wide16(Wide::zeros(rows, cols)),
            (Shape::Wide, DType::U8) => Memory::Codes(Wide::zeros(rows, cols)),
            (Shape::Scales, DType::F32) => Memory::Scales(vec![0.0; rows * cols]),
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
        let transposed = matches!(shape_of(tensor.kind), Shape::ThinTransposed);
        match self {
            Memory::Thin32(x) => thin_bytes(x, tensor, transposed),
            Memory::Thin64(x) => thin_bytes(x, tensor, transposed),
            Memory::Wide32(x) => row_major(tensor, |i, j| x.get(i, j)),
            Memory::Wide64(x) => row_major(tensor, |i, j| x.get(i, j)),
            Memory::Wide16(x) => row_major(tensor, |i, j| x.get(i, j).to_bits()),
            Memory::Codes(x) => row_major(tensor, |i, j| x.get(i, j)),
            Memory::Scales(x) => cast_slice(x).to_vec(),
        }
    }

    /// The tensor with these row-major bytes.
    pub(crate) fn from_bytes(tensor: &StateTensor, bytes: &[u8]) -> Result<Memory, Error> {
        tensor.check_bytes(bytes)?;
        let transposed = matches!(shape_of(tensor.kind), Shape::ThinTransposed);
        let mut memory = Memory::zeros(tensor)?;
        match &mut memory {
            Memory::Thin32(x) => thin_from(x, tensor, transposed, bytes),
            Memory::Thin64(x) => thin_from(x, tensor, transposed, bytes),
            Memory::Wide32(x) => entries(tensor, bytes, |i, j, value| x.set(i, j, value)),
            Memory::Wide64(x) => entries(tensor, bytes, |i, j, value| x.set(i, j, value)),
            Memory::Wide16(x) => {
                entries(tensor, bytes, |i, j, value| {
                    x.set(i, j, bf16::from_bits(value))
                });
            }
            Memory::Codes(x) => entries(tensor, bytes, |i, j, value| x.set(i, j, value)),
            Memory::Scales(x) => {
                let [_, cols] = tensor.shape;
                entries(tensor, bytes, |i, j, value| x[i * cols + j] = value);
            }
        }
        Ok(memory)
    }
}

impl Memory {
    /// Row, column and value of the first entry that is not finite.
    pub(crate) fn non_finite(&self, tensor: &StateTensor) -> Option<(usize, usize, f64)> {
        let transposed = matches!(shape_of(tensor.kind), Shape::ThinTransposed);
        let thin = |i: usize, j: usize| if transposed { (j, i) } else { (i, j) };
        let [rows, cols] = tensor.shape;
        let get = |i: usize, j: usize| {
            let (row, column) = thin(i, j);
            match self {
                Memory::Thin32(x) => x.get(row, column).into(),
                Memory::Thin64(x) => x.get(row, column),
                Memory::Wide32(x) => x.get(i, j).into(),
                Memory::Wide64(x) => x.get(i, j),
                Memory::Wide16(x) => x.get(i, j).to_f64(),
                Memory::Codes(_) => 0.0,
                Memory::Scales(x) => x[i * cols + j].into(),
            }
        };
        let entries = (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j)));
        entries
            .map(|(i, j)| (i, j, get(i, j)))
            .find(|entry| !entry.2.is_finite())
    }
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

/// Checkpoints are little-endian; so is every machine that this crate has SIMD paths for, and
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

/// The memory of the state tensors of these kinds, borrowed at once.
pub(crate) fn tensors<const N: usize>(
    state: &mut State,
    kinds: [impl Into<Option<StateKind>>; N],
) -> [Option<&mut Memory>; N] {
    let kinds = kinds.map(Into::into);
    let mut found = [const { None }; N];
    for (tensor, buffer) in &mut state.tensors {
        if let Some(k) = kinds.iter().position(|kind| *kind == Some(tensor.kind)) {
            found[k] = buffer.get_mut::<Memory>();
        }
    }
    found
}

/// A number type with state of its own.
pub(crate) trait Stateful: Real {
    /// Tiles of f32 moments, for computing with this type.
    type From32<'p>: Moments<Self>;

    fn thin(memory: &mut Memory) -> Option<&mut Panel<Self>>;
    fn blocks(memory: &mut Memory) -> Option<&mut [Block<Self>]>;
    fn from32<'p>(tiles: Slices<'p, Block<f32>>) -> Self::From32<'p>;
    /// Tiles of f64 moments: only where f64 is computed with.
    fn from64<'p>(tiles: Slices<'p, Block<f64>>) -> Option<Slices<'p, Block<Self>>>;
}

impl Stateful for f32 {
    type From32<'p> = Slices<'p, Block<f32>>;

    fn from32<'p>(tiles: Slices<'p, Block<f32>>) -> Self::From32<'p> {
        tiles
    }

    fn from64<'p>(_: Slices<'p, Block<f64>>) -> Option<Slices<'p, Block<f32>>> {
        None
    }

    fn thin(memory: &mut Memory) -> Option<&mut Panel<f32>> {
        match memory {
            Memory::Thin32(panel) => Some(panel),
            _ => None,
        }
    }

    fn blocks(memory: &mut Memory) -> Option<&mut [Block<f32>]> {
        match memory {
            Memory::Wide32(wide) => Some(&mut wide.blocks),
            _ => None,
        }
    }
}

impl Stateful for f64 {
    type From32<'p> = Shorter<'p, f32>;

    fn from32<'p>(tiles: Slices<'p, Block<f32>>) -> Self::From32<'p> {
        Shorter(tiles)
    }

    fn from64<'p>(tiles: Slices<'p, Block<f64>>) -> Option<Slices<'p, Block<f64>>> {
        Some(tiles)
    }

    fn thin(memory: &mut Memory) -> Option<&mut Panel<f64>> {
        match memory {
            Memory::Thin64(panel) => Some(panel),
            _ => None,
        }
    }

    fn blocks(memory: &mut Memory) -> Option<&mut [Block<f64>]> {
        match memory {
            Memory::Wide64(wide) => Some(&mut wide.blocks),
            _ => None,
        }
    }
}

/// A thin state tensor, if it is there.
pub(crate) fn thin<T: Stateful>(memory: Option<&mut Memory>) -> Option<&mut Panel<T>> {
    memory.and_then(T::thin)
}

/// Refuses state that another backend allocated.
pub(crate) fn check_state(state: &State) -> Result<(), Error> {
    for (tensor, buffer) in &state.tensors {
        if buffer.get::<Memory>().is_none() {
            return Err(foreign_buffer(NAME, tensor.kind));
        }
    }
    Ok(())
}
