//! Device memory that is ours, and how state tensors lie in it.

use std::sync::Arc;

use lora_pro_core::backend::{State, StateForm, StateKind, StateTensor, foreign_buffer};
use lora_pro_core::{DType, Error};

use crate::NAME;
use crate::device::Device;

/// Numbers that a row of ours is padded to, so that it may be read sixteen bytes at a time.
const ALIGNMENT: usize = 8;

/// Device memory that is given back with its owner.
pub struct Block {
    device: Arc<dyn Device>,
    at: u64,
    bytes: usize,
}

impl Block {
    /// Zeros.
    ///
    /// # Errors
    /// [`Error::Backend`] where there is not enough.
    pub fn zeros(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, Error> {
        let at = device.allocate(bytes)?;
        let block = Block {
            device: device.clone(),
            at,
            bytes,
        };
        // SAFETY: the memory was just allocated with as many bytes.
        unsafe { device.fill(0, at, 0, bytes)? };
        device.synchronize(0)?;
        Ok(block)
    }

    /// Its address.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is in it, after all work on the stream.
    ///
    /// # Errors
    /// [`Error::Backend`] where something of that work failed.
    pub fn read(&self, stream: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.bytes];
        // SAFETY: the block has as many bytes.
        unsafe { self.device.read(stream, self.at, &mut bytes)? };
        Ok(bytes)
    }

    /// Puts bytes at its start.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver refuses.
    ///
    /// # Panics
    /// Where there is no room for as many bytes.
    pub fn write(&self, stream: u64, bytes: &[u8]) -> Result<(), Error> {
        assert!(
            bytes.len() <= self.bytes,
            "as many bytes as there is room for"
        );
        // SAFETY: the block has at least as many bytes, and is ours.
        unsafe { self.device.write(stream, self.at, bytes) }
    }

    /// A copy on the device.
    pub(crate) fn copied(&self, stream: u64) -> Result<Block, Error> {
        let copy = Block::zeros(&self.device, self.bytes)?;
        copy.take(stream, self)?;
        Ok(copy)
    }

    /// Takes another block's bytes.
    pub(crate) fn take(&self, stream: u64, from: &Block) -> Result<(), Error> {
        debug_assert_eq!(self.bytes, from.bytes);
        // SAFETY: two blocks of the same size are never the same memory.
        unsafe {
            self.device
                .copy(stream, from.at, self.at, self.bytes.min(from.bytes))
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the block owns its memory, and whoever launched work on it keeps it until then.
        unsafe { self.device.free(self.at, self.bytes) };
    }
}

/// Numbers in a row of a panel for `len` numbers.
pub(crate) fn leading(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}

/// How a tensor lies in memory: rows of `leading(cols)` numbers, perhaps of its transpose.
struct Layout {
    transposed: bool,
    rows: usize,
    cols: usize,
    ld: usize,
}

impl Layout {
    fn of(tensor: &StateTensor) -> Self {
        let [rows, cols] = tensor.shape;
        let form = tensor.kind.form();
        // B and its state are kept transposed, so that their long side is contiguous.
        let transposed = matches!(form, StateForm::B | StateForm::Column);
        let (rows, cols) = if transposed {
            (cols, rows)
        } else {
            (rows, cols)
        };
        let ld = match form {
            StateForm::WeightBlocks => cols,
            _ => leading(cols),
        };
        Layout {
            transposed,
            rows,
            cols,
            ld,
        }
    }

    /// For each row-major element of the tensor, its place in memory.
    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let (outer, inner) = if self.transposed {
            (self.cols, self.rows)
        } else {
            (self.rows, self.cols)
        };
        (0..outer).flat_map(move |i| {
            (0..inner).map(move |j| {
                if self.transposed {
                    j * self.ld + i
                } else {
                    i * self.ld + j
                }
            })
        })
    }
}

/// Memory of one state tensor.
pub(crate) struct Memory {
    pub(crate) block: Block,
}

impl Memory {
    /// Zeros.
    pub(crate) fn zeros(device: &Arc<dyn Device>, tensor: &StateTensor) -> Result<Self, Error> {
        if tensor.dtype == DType::F16 {
            return Err(Error::Unsupported {
                subject: format!("state tensor `{}`", tensor.name()),
                backend: NAME.into(),
                what: format!("storage type {}", tensor.dtype),
            });
        }
        let layout = Layout::of(tensor);
        let block = Block::zeros(device, layout.rows * layout.ld * tensor.dtype.size())?;
        Ok(Memory { block })
    }

    /// The row-major bytes.
    pub(crate) fn download(&self, stream: u64, tensor: &StateTensor) -> Result<Vec<u8>, Error> {
        let (bytes, size) = (self.block.read(stream)?, tensor.dtype.size());
        let places = Layout::of(tensor);
        let elements = places.places().map(|at| &bytes[at * size..][..size]);
        Ok(elements.flatten().copied().collect())
    }

    /// Replaces the tensor by row-major bytes.
    pub(crate) fn upload(
        &mut self,
        stream: u64,
        tensor: &StateTensor,
        bytes: &[u8],
    ) -> Result<(), Error> {
        tensor.check_bytes(bytes)?;
        let size = tensor.dtype.size();
        let mut padded = vec![0; self.block.bytes()];
        let layout = Layout::of(tensor);
        for (at, element) in layout.places().zip(bytes.chunks_exact(size)) {
            padded[at * size..][..size].copy_from_slice(element);
        }
        self.block.write(stream, &padded)
    }
}

/// Address of the state tensor of this kind; 0 where the layout has none.
pub(crate) fn address(state: &State, kind: StateKind) -> Result<u64, Error> {
    let Some((_, buffer)) = state.find(kind) else {
        return Ok(0);
    };
    match buffer.get::<Memory>() {
        Some(memory) => Ok(memory.block.at()),
        None => Err(foreign_buffer(NAME, kind)),
    }
}
