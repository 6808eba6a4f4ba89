//! How state tensors lie in device memory.

use std::sync::Arc;

use lora_pro_core::backend::{State, StateForm, StateKind, StateTensor};
use lora_pro_core::{DType, Error};

use crate::NAME;
use crate::constants::ROW_ALIGNMENT;
use crate::device::Device;
use crate::device_buffer::DeviceBuffer;

/// Numbers from row to row of a panel of `len` columns: rows are padded, so that they may be read
/// sixteen bytes at a time.
pub(crate) fn leading(len: usize) -> usize {
    len.next_multiple_of(ROW_ALIGNMENT)
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
        // B and its state are kept transposed, so that their long side is contiguous.
        let (transposed, padded) = match tensor.kind.form() {
            StateForm::B | StateForm::Column => (true, true),
            StateForm::A | StateForm::Row | StateForm::Weight | StateForm::Param => (false, true),
            StateForm::WeightBlocks => (false, false),
        };
        let [mut rows, mut cols] = tensor.shape;
        if transposed {
            (rows, cols) = (cols, rows);
        }
        let ld = if padded { leading(cols) } else { cols };
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

/// The memory of one state tensor.
pub(crate) struct StateBuffer {
    pub(crate) buffer: DeviceBuffer,
}

impl StateBuffer {
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
        let buffer = DeviceBuffer::zeros(device, layout.rows * layout.ld * tensor.dtype.size())?;
        Ok(StateBuffer { buffer })
    }

    /// The row-major bytes.
    pub(crate) fn download(&self, stream: u64, tensor: &StateTensor) -> Result<Vec<u8>, Error> {
        let (bytes, size) = (self.buffer.read(stream)?, tensor.dtype.size());
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
        let mut padded = vec![0; self.buffer.bytes()];
        let layout = Layout::of(tensor);
        for (at, element) in layout.places().zip(bytes.chunks_exact(size)) {
            padded[at * size..][..size].copy_from_slice(element);
        }
        self.buffer.write(stream, &padded)
    }
}

/// Address of the subject's state tensor of this kind.
///
/// # Errors
/// Where the state has none, and where another backend allocated it.
pub(crate) fn address(
    state: &State,
    kind: StateKind,
    subject: impl Fn() -> String,
) -> Result<u64, Error> {
    let Some((_, buffer)) = state.find(kind) else {
        let expected = "present for this method";
        return Err(Error::invalid(&subject(), "state", kind, expected));
    };
    match buffer.get::<StateBuffer>() {
        Some(memory) => Ok(memory.buffer.at()),
        None => {
            let subject = subject();
            let reason = format!("{subject}: state tensor `{kind}` is another backend's");
            Err(Error::backend(NAME, reason))
        }
    }
}
