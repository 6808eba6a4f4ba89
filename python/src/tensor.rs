//! Torch's tensors as core's views. All `unsafe` of this crate is here.

use lora_pro::{DType, Location, MatMut, MatRef};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyByteArray, PyTuple};

use crate::error::exception;

/// What of torch is looked up once.
pub struct Torch {
    types: [Py<PyAny>; 2],
    strided: Py<PyAny>,
    dtypes: Vec<(Py<PyAny>, DType)>,
    frombuffer: Py<PyAny>,
}

static TORCH: PyOnceLock<Torch> = PyOnceLock::new();

/// Gives a tensor's name, for an error.
pub type Name<'n> = dyn Fn() -> String + 'n;

/// Names of torch's dtypes, and the storage types of parameters and state.
const DTYPES: [(&str, DType); 5] = [
    ("float32", DType::F32),
    ("bfloat16", DType::Bf16),
    ("float16", DType::F16),
    ("float64", DType::F64),
    ("uint8", DType::U8),
];

impl Torch {
    /// Torch, imported where it was not.
    pub fn get(py: Python<'_>) -> PyResult<&Torch> {
        TORCH.get_or_try_init(py, || {
            let torch = py.import("torch")?;
            let of = |name: &str| torch.getattr(name).map(Bound::unbind);
            let parameter = torch.getattr("nn")?.getattr("Parameter")?.unbind();
            let mut dtypes = Vec::new();
            for (name, dtype) in DTYPES {
                dtypes.push((of(name)?, dtype));
            }
            Ok(Torch {
                types: [parameter, of("Tensor")?],
                strided: of("strided")?,
                dtypes,
                frombuffer: of("frombuffer")?,
            })
        })
    }

    /// A tensor's address, shape, strides, dtype and device. A vector counts as one row.
    ///
    /// `what` names the tensor in errors: it is only called for one. A tensor of another class (DTensor, a quantised weight, a
    /// fake tensor) may have no memory of its own, so it is rejected by its type.
    pub fn read(&self, tensor: &Bound<'_, PyAny>, what: &Name<'_>) -> PyResult<RawTensor> {
        let py = tensor.py();
        let class = tensor.get_type();
        if !self.types.iter().any(|known| class.is(known)) {
            let class = class.name()?;
            return Err(exception(format!(
                "{} is a {class}, but it must be a plain torch.Tensor: sharded, flattened and \
                 wrapped tensors cannot be stepped as if they were whole",
                what()
            )));
        }
        if !tensor.getattr(intern!(py, "layout"))?.is(&self.strided) {
            return Err(exception(format!(
                "{} is sparse, but it must be dense",
                what()
            )));
        }
        let location = location(tensor, what)?;
        let ptr: usize = tensor.call_method0(intern!(py, "data_ptr"))?.extract()?;
        if ptr == 0 {
            return Err(exception(format!(
                "{} has no memory: it was freed, or another process holds it",
                what()
            )));
        }
        let shape = tensor
            .getattr(intern!(py, "shape"))?
            .cast_into::<PyTuple>()?;
        let strides = tensor
            .call_method0(intern!(py, "stride"))?
            .cast_into::<PyTuple>()?;
        let (shape, strides) = match shape.len() {
            1 => (
                [1, shape.get_item(0)?.extract()?],
                [0, strides.get_item(0)?.extract()?],
            ),
            2 => (shape.extract()?, strides.extract()?),
            count => {
                return Err(exception(format!(
                    "{} has {count} dimensions, not 1 or 2",
                    what()
                )));
            }
        };
        Ok(RawTensor {
            ptr,
            shape,
            strides,
            dtype: self.dtype(&tensor.getattr(intern!(py, "dtype"))?, what)?,
            location,
        })
    }

    fn dtype(&self, dtype: &Bound<'_, PyAny>, what: &Name<'_>) -> PyResult<DType> {
        let known = self.dtypes.iter().find(|(known, _)| dtype.is(known));
        known.map(|(_, dtype)| *dtype).ok_or_else(|| {
            exception(format!(
                "{} is {dtype}, but it must be one of float32, float64, bfloat16, float16",
                what()
            ))
        })
    }

    /// A new tensor on the CPU from row-major bytes.
    pub fn tensor<'py>(
        &self,
        py: Python<'py>,
        dtype: DType,
        shape: &[usize],
        bytes: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let index = DTYPES.iter().position(|(_, known)| *known == dtype);
        let (class, _) = &self.dtypes[index.unwrap_or_default()];
        let memory = PyByteArray::new(py, bytes);
        let options = [(intern!(py, "dtype"), class)].into_py_dict(py)?;
        let flat = self.frombuffer.bind(py).call((memory,), Some(&options))?;
        flat.call_method1(intern!(py, "reshape"), (shape.to_vec(),))
    }
}

fn location(tensor: &Bound<'_, PyAny>, what: &Name<'_>) -> PyResult<Location> {
    let py = tensor.py();
    if tensor.getattr(intern!(py, "is_cpu"))?.is_truthy()? {
        return Ok(Location::Host);
    }
    if tensor.getattr(intern!(py, "is_cuda"))?.is_truthy()? {
        let ordinal = tensor.call_method0(intern!(py, "get_device"))?.extract()?;
        return Ok(Location::Cuda(ordinal));
    }
    let device = tensor.getattr(intern!(py, "device"))?;
    Err(exception(format!(
        "{} is on {device}, but it must be on the CPU or on CUDA: use backend=\"torch\"",
        what()
    )))
}

/// What is known of a tensor once the interpreter is left. It does not keep the memory alive: the
/// list that the caller of a step passes does.
#[derive(Clone, Copy, Debug)]
pub struct RawTensor {
    ptr: usize,
    shape: [usize; 2],
    strides: [isize; 2],
    dtype: DType,
    location: Location,
}

impl RawTensor {
    /// The tensor to read.
    ///
    /// # Safety
    /// The tensor that was read must be alive for 'a and not be written by the caller meanwhile.
    pub unsafe fn view<'a>(&self) -> MatRef<'a> {
        let ptr = self.ptr as *const u8;
        // SAFETY: torch keeps every element of a strided tensor inside of its storage, which is
        // initialised or holds any bits, all of which are values; the caller keeps it alive.
        unsafe { MatRef::from_raw(ptr, self.shape, self.strides, self.dtype, self.location) }
    }

    /// The tensor to read and write.
    ///
    /// # Safety
    /// As for [`RawTensor::view`]; besides, no other view of a step may reach its elements.
    pub unsafe fn view_mut<'a>(&self) -> MatMut<'a> {
        let ptr = self.ptr as *mut u8;
        // SAFETY: as in `view`; `check_distinct` has made sure that each element is reached once.
        unsafe { MatMut::from_raw(ptr, self.shape, self.strides, self.dtype, self.location) }
    }

    /// Rejects a tensor that reaches an element twice, as an expanded one does.
    pub fn check_distinct(&self, what: &Name<'_>) -> PyResult<()> {
        let [mut outer, mut inner] = [0, 1].map(|k| (self.strides[k], self.shape[k]));
        if outer.0 < inner.0 {
            std::mem::swap(&mut outer, &mut inner);
        }
        let steps = |(stride, count): (isize, usize), least: isize| count <= 1 || stride >= least;
        let span = inner.0 * (inner.1.max(1) as isize - 1);
        if steps(inner, 1) && steps(outer, span + 1) {
            return Ok(());
        }
        Err(exception(format!(
            "{} reaches an element of its memory twice (strides {:?}): an expanded tensor \
             cannot be stepped",
            what(),
            self.strides
        )))
    }

    /// Shape, and whether the elements lie one after another.
    pub fn is_contiguous(&self) -> bool {
        let [rows, cols] = self.shape;
        (cols <= 1 || self.strides[1] == 1) && (rows <= 1 || self.strides[0] == cols as isize)
    }

    /// A copy of the bytes of a contiguous tensor in ordinary memory.
    ///
    /// # Safety
    /// The tensor that was read must be alive.
    pub unsafe fn bytes(&self) -> Vec<u8> {
        let length = self.shape[0] * self.shape[1] * self.dtype.size();
        // SAFETY: a contiguous tensor's elements are this many bytes from its address on.
        unsafe { std::slice::from_raw_parts(self.ptr as *const u8, length) }.to_vec()
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
}
