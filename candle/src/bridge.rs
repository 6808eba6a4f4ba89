//! Between candle's memory and core's: what is borrowed and what is copied.
//!
//! - **Gradients are borrowed** straight from candle's storage, strides and all ([`TensorView`]).
//! - **Parameters are copied once per step.** candle lends a variable's storage for writing only one
//!   at a time, and the optimizer steps all of them at once. So it steps a copy ([`Buffer`]), whose
//!   memory is then exchanged with the variable's. A step that is rejected exchanges nothing, and
//!   whatever the caller has written into a variable between two steps is what the next one reads.

use std::cell::Cell;

use candle_core::{
    CpuStorage, DType, Device, InplaceOp1, Layout, Storage, StorageRef, Tensor, Var,
};
use lora_pro_core::{Error, MatMut, MatRef, TensorData};

/// candle's error as core's.
pub fn candle_error(error: candle_core::Error) -> Error {
    Error::backend("candle", error)
}

/// One arm for each storage type that parameters can have.
macro_rules! match_storage {
    ($storage:expr, $values:pat => $result:expr, $other:expr) => {
        match $storage {
            CpuStorage::F64($values) => $result,
            CpuStorage::F32($values) => $result,
            CpuStorage::BF16($values) => $result,
            CpuStorage::F16($values) => $result,
            _ => $other,
        }
    };
}

/// The matrix that core sees: a vector is one row, as in [`lora_pro_core::ParamSpec`], and so are all
/// entries of a tensor with more dimensions than two.
pub fn matrix_shape(dims: &[usize]) -> [usize; 2] {
    match *dims {
        [rows, cols] => [rows, cols],
        _ => [1, dims.iter().product()],
    }
}

/// Strides of [`matrix_shape`], in elements. More dimensions than two must be contiguous.
fn matrix_strides(layout: &Layout) -> Result<[usize; 2], Error> {
    match *layout.stride() {
        [row, col] => Ok([row, col]),
        [col] => Ok([0, col]),
        _ if layout.is_contiguous() => Ok([0, 1]),
        _ => Err(unsupported("strides", "contiguous")),
    }
}

fn unsupported(field: &'static str, expected: &str) -> Error {
    Error::invalid("a candle tensor", field, "another", expected)
}

/// What a tensor of this crate can be.
const STORAGE: &str = "f64, f32, bf16 or f16 on the CPU";

/// A tensor whose storage is locked for reading.
#[derive(Debug)]
pub struct TensorView<'t> {
    storage: StorageRef<'t>,
    layout: &'t Layout,
}

impl<'t> TensorView<'t> {
    /// Locks the tensor's storage until the view is dropped.
    pub fn new(tensor: &'t Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        TensorView { storage, layout }
    }

    /// The tensor as core sees it, without a copy: [`matrix_shape`], whatever the strides.
    ///
    /// Rejects other types than parameters can have, other devices than the CPU, and more than two
    /// dimensions that are not contiguous.
    pub fn matrix(&self) -> Result<MatRef<'_>, Error> {
        let (shape, strides) = (
            matrix_shape(self.layout.dims()),
            matrix_strides(self.layout)?,
        );
        let Storage::Cpu(storage) = &*self.storage else {
            return Err(unsupported("storage", STORAGE));
        };
        match_storage!(
            storage,
            values => {
                let start = values.get(self.layout.start_offset()..).unwrap_or_default();
                MatRef::strided(start, shape, strides)
            },
            Err(unsupported("storage", STORAGE))
        )
    }
}

/// A copy of a variable's numbers, to be stepped and then exchanged with the variable's own.
#[derive(Clone, Debug)]
pub struct Buffer {
    storage: CpuStorage,
    shape: [usize; 2],
}

impl Buffer {
    /// Memory for a variable's numbers, which are in it.
    pub fn new(var: &Var) -> Result<Self, Error> {
        let (storage, layout) = var.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            return Err(unsupported("storage", STORAGE));
        };
        let whole = layout.is_contiguous() && layout.start_offset() == 0;
        let count = match_storage!(
            storage,
            values => values.len(),
            return Err(unsupported("storage", STORAGE))
        );
        if !whole || count != layout.shape().elem_count() {
            return Err(unsupported(
                "layout",
                "contiguous, as candle makes variables",
            ));
        }
        Ok(Buffer {
            storage: storage.clone(),
            shape: matrix_shape(layout.dims()),
        })
    }

    /// Copies the variable's present numbers.
    pub fn read(&mut self, var: &Var) -> Result<(), Error> {
        let (storage, _) = var.storage_and_layout();
        match (&mut self.storage, &*storage) {
            (CpuStorage::F64(to), Storage::Cpu(CpuStorage::F64(from))) => to.clone_from(from),
            (CpuStorage::F32(to), Storage::Cpu(CpuStorage::F32(from))) => to.clone_from(from),
            (CpuStorage::BF16(to), Storage::Cpu(CpuStorage::BF16(from))) => to.clone_from(from),
            (CpuStorage::F16(to), Storage::Cpu(CpuStorage::F16(from))) => to.clone_from(from),
            _ => return Err(unsupported("storage", STORAGE)),
        }
        Ok(())
    }

    /// The numbers, to be stepped.
    pub fn matrix_mut(&mut self) -> Result<MatMut<'_>, Error> {
        match_storage!(
            &mut self.storage,
            values => MatMut::new(values, self.shape),
            Err(unsupported("storage", STORAGE))
        )
    }

    /// Exchanges the numbers with the variable's, without a copy. All that shares the variable's
    /// storage sees the new ones.
    pub fn swap(&mut self, var: &Var) -> Result<(), Error> {
        let swap = Swap(Cell::new(Some(&mut self.storage)));
        var.inplace_op1(&swap).map_err(candle_error)
    }
}

/// The exchange, as candle lets one write into a storage.
struct Swap<'b>(Cell<Option<&'b mut CpuStorage>>);

impl InplaceOp1 for Swap<'_> {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _layout: &Layout) -> candle_core::Result<()> {
        match self.0.take() {
            Some(other) if same_kind(storage, other) => std::mem::swap(storage, other),
            _ => candle_core::bail!("a variable has changed its type or its size"),
        }
        Ok(())
    }
}

/// Whether type and size agree. candle relies on the size of what it has allocated.
fn same_kind(one: &CpuStorage, other: &CpuStorage) -> bool {
    match (one, other) {
        (CpuStorage::F64(one), CpuStorage::F64(other)) => one.len() == other.len(),
        (CpuStorage::F32(one), CpuStorage::F32(other)) => one.len() == other.len(),
        (CpuStorage::BF16(one), CpuStorage::BF16(other)) => one.len() == other.len(),
        (CpuStorage::F16(one), CpuStorage::F16(other)) => one.len() == other.len(),
        _ => false,
    }
}

/// core's name of a storage type; rejects what no parameter has.
pub fn dtype(tensor: &Tensor) -> Result<lora_pro_core::DType, Error> {
    match tensor.dtype() {
        DType::F64 => Ok(lora_pro_core::DType::F64),
        DType::F32 => Ok(lora_pro_core::DType::F32),
        DType::BF16 => Ok(lora_pro_core::DType::Bf16),
        DType::F16 => Ok(lora_pro_core::DType::F16),
        _ => Err(unsupported("dtype", STORAGE)),
    }
}

/// A tensor's shape and row-major bytes.
pub fn to_data(tensor: &Tensor) -> Result<TensorData, Error> {
    let tensor = tensor.contiguous().map_err(candle_error)?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(unsupported("storage", STORAGE));
    };
    let start = layout.start_offset();
    let range = start..start + layout.shape().elem_count();
    match_storage!(
        storage,
        values => {
            let values = values.get(range).unwrap_or_default();
            Ok(TensorData::from_slice(layout.dims(), values))
        },
        Err(unsupported("storage", STORAGE))
    )
}

/// The tensor that [`to_data`] wrote.
pub fn from_data(data: &TensorData) -> Result<Tensor, Error> {
    let dtype = match data.dtype {
        lora_pro_core::DType::F64 => DType::F64,
        lora_pro_core::DType::F32 => DType::F32,
        lora_pro_core::DType::Bf16 => DType::BF16,
        lora_pro_core::DType::F16 => DType::F16,
        lora_pro_core::DType::U8 => DType::U8,
    };
    Tensor::from_raw_buffer(&data.bytes, dtype, &data.shape, &Device::Cpu).map_err(candle_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_has_the_tensors_strides_and_offset() {
        let tensor = Tensor::arange(0f32, 12., &Device::Cpu).unwrap();
        let part = tensor.reshape((3, 4)).unwrap().t().unwrap();
        let part = part.narrow(0, 1, 2).unwrap();
        let view = TensorView::new(&part);
        let matrix = view.matrix().unwrap();
        assert_eq!(matrix.shape(), [2, 3]);
        assert_eq!([matrix.get(0, 0), matrix.get(1, 2)], [1.0, 10.0]);
    }

    #[test]
    fn what_core_cannot_see_is_an_error() {
        let turned = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu).unwrap();
        assert!(TensorView::new(&turned).matrix().is_ok());
        let turned = turned.transpose(0, 2).unwrap();
        assert!(TensorView::new(&turned).matrix().is_err());
        let bytes = Tensor::zeros((2, 3), DType::U8, &Device::Cpu).unwrap();
        assert!(TensorView::new(&bytes).matrix().is_err());
    }

    #[test]
    fn a_buffer_exchanges_its_numbers_with_the_variable() {
        for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
            let var = Var::zeros((2, 3), dtype, &Device::Cpu).unwrap();
            let sharing = var.detach();
            let mut buffer = Buffer::new(&var).unwrap();
            buffer.matrix_mut().unwrap().set(1, 2, 0.5);
            assert_eq!(TensorView::new(&var).matrix().unwrap().get(1, 2), 0.0);
            buffer.swap(&var).unwrap();
            assert_eq!(TensorView::new(&sharing).matrix().unwrap().get(1, 2), 0.5);
            buffer.read(&var).unwrap();
            assert_eq!(buffer.matrix_mut().unwrap().get(1, 2), 0.5);
            let data = to_data(&var).unwrap();
            assert_eq!(to_data(&from_data(&data).unwrap()).unwrap(), data);
        }
    }

    #[test]
    fn another_variables_buffer_is_not_taken() {
        let var = Var::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let other = Var::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(Buffer::new(&other).unwrap().swap(&var).is_err());
    }
}
