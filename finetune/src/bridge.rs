//! Between candle's memory and core's: what is borrowed and what is copied.
//!
//! - **Gradients are borrowed** straight from candle's CPU storage, strides and all
//!   ([`Borrowed`]).
//! - **Parameters are copied once per step.** candle gives no write access to a variable's
//!   storage, so the optimizer steps host memory ([`Trained`]), which is then copied into the
//!   variable.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, Layout, Storage, StorageRef, Tensor, Var};
use lora_pro_core::{Error, HostTensor, MatRef, TensorData};

/// candle's error as ours.
pub(crate) fn candle(error: candle_core::Error) -> Error {
    Error::backend("candle", error)
}

/// An f32 tensor's shape and row-major bytes.
pub(crate) fn to_data(tensor: &Tensor) -> Result<TensorData, Error> {
    let values = tensor
        .flatten_all()
        .and_then(|flat| flat.to_vec1::<f32>())
        .map_err(candle)?;
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(TensorData {
        dtype: lora_pro_core::DType::F32,
        shape: tensor.dims().to_vec(),
        bytes,
    })
}

/// The f32 tensor that [`to_data`] wrote; `name` is for the error.
pub(crate) fn from_data(name: &str, data: &TensorData) -> Result<Tensor, String> {
    if data.dtype != lora_pro_core::DType::F32 {
        return Err(format!(
            "tensor `{name}` is {}, but f32 is needed",
            data.dtype
        ));
    }
    Tensor::from_raw_buffer(&data.bytes, DType::F32, &data.shape, &Device::Cpu)
        .map_err(|error| format!("tensor `{name}`: {error}"))
}

/// A matrix's shape; a vector is a matrix of one row, as in [`lora_pro_core::ParamSpec`].
fn matrix_shape(dims: &[usize]) -> [usize; 2] {
    match *dims {
        [rows, cols] => [rows, cols],
        _ => [1, dims.iter().product()],
    }
}

/// A trained tensor twice: the variable that candle differentiates, and the host memory that the
/// optimizer steps.
pub(crate) struct Trained {
    pub var: Var,
    pub host: HostTensor,
}

impl Trained {
    pub fn new(start: &Tensor) -> Result<Self, Error> {
        let TensorData {
            dtype,
            shape,
            bytes,
        } = to_data(start)?;
        let host = HostTensor::from_bytes(dtype, matrix_shape(&shape), bytes);
        // A copy: the start may be shared with the frozen network or with another run.
        let var = start
            .copy()
            .and_then(|copy| Var::from_tensor(&copy))
            .map_err(candle)?;
        let host = host.ok_or_else(|| Error::invalid("a tensor", "shape", "wrong", "its own"))?;
        Ok(Trained { var, host })
    }

    /// Copies the stepped host memory into the variable; false if it is not finite.
    pub fn publish(&self) -> Result<bool, Error> {
        let values = self.host.bytes().chunks_exact(4).map(|bytes| {
            // A chunk of four has four bytes.
            f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        });
        let values: Vec<f32> = values.collect();
        let finite = values.iter().all(|x| x.is_finite());
        let tensor = Tensor::from_vec(values, self.var.dims(), &Device::Cpu);
        tensor
            .and_then(|tensor| self.var.set(&tensor))
            .map_err(candle)?;
        Ok(finite)
    }

    /// Its gradient, borrowed.
    pub fn gradient<'g>(&self, gradients: &'g GradStore) -> Result<Borrowed<'g>, Error> {
        let missing = || Error::backend("candle", "no gradient");
        let (storage, layout) = gradients
            .get(&self.var)
            .ok_or_else(missing)?
            .storage_and_layout();
        Ok(Borrowed { storage, layout })
    }
}

/// A candle tensor's storage, locked for reading.
pub(crate) struct Borrowed<'t> {
    storage: StorageRef<'t>,
    layout: &'t Layout,
}

impl Borrowed<'_> {
    /// The tensor as core sees it, without a copy.
    pub fn view(&self) -> Result<MatRef<'_>, Error> {
        let Storage::Cpu(CpuStorage::F32(values)) = &*self.storage else {
            return Err(Error::invalid(
                "a gradient",
                "storage",
                "another",
                "f32 on the CPU",
            ));
        };
        let strides = match *self.layout.stride() {
            [row, col] => [row, col],
            [col] => [0, col],
            _ => [0, 1],
        };
        let start = values.get(self.layout.start_offset()..).unwrap_or_default();
        MatRef::strided(start, matrix_shape(self.layout.dims()), strides)
    }
}
