//! Which tensors an optimizer remembers, by method. Same names and shapes on every backend, so
//! that a checkpoint written on one loads on another.

use std::any::Any;

use crate::{AdapterSpec, DType, Error, Hyper, Method, MomentDType, ParamSpec, Rounding};

/// Rows and columns of the blocks that share a scale in 8-bit moments.
pub const MOMENT_BLOCK: [usize; 2] = [6, 64];

/// Name, shape and dtype of one state tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateTensor {
    /// Its name in the checkpoint.
    pub name: &'static str,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Storage type.
    pub dtype: DType,
}

impl StateTensor {
    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.shape[0] * self.shape[1] * self.dtype.size()
    }

    /// Refuses bytes that are too many or too few.
    pub fn check_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() == self.bytes() {
            return Ok(());
        }
        let expected = format!("{} bytes", self.bytes());
        Err(Error::invalid(
            "the optimizer",
            self.name,
            bytes.len(),
            expected,
        ))
    }
}

/// Memory of one state tensor, of whatever kind its backend uses.
pub struct Buffer(Box<dyn Any + Send>);

impl Buffer {
    /// Wraps a backend's own memory type.
    pub fn new<T: Any + Send>(memory: T) -> Self {
        Buffer(Box::new(memory))
    }

    /// The backend's memory type back; `None` if another backend made the buffer.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// As [`Buffer::get`], to write.
    pub fn get_mut<T: Any>(&mut self) -> Option<&mut T> {
        self.0.downcast_mut()
    }
}

/// The state of one adapter or parameter.
pub struct State {
    /// Steps taken, t. Advanced by the backend with each step that it commits, and by nothing
    /// else: a skipped step does not count. (A device that steps in a captured graph counts
    /// there, and brings this number up to date in [`crate::Backend::sync`].)
    pub step: u64,
    /// The tensors, in the order of their layout.
    pub tensors: Vec<(StateTensor, Buffer)>,
}

impl State {
    /// The buffer called `name`.
    pub fn buffer(&self, name: &str) -> Option<&Buffer> {
        let found = self
            .tensors
            .iter()
            .find(|(tensor, _)| tensor.name == name)?;
        Some(&found.1)
    }

    /// The buffer called `name`, to write.
    pub fn buffer_mut(&mut self, name: &str) -> Option<&mut Buffer> {
        let found = self
            .tensors
            .iter_mut()
            .find(|(tensor, _)| tensor.name == name)?;
        Some(&mut found.1)
    }

    /// Storage type of the tensor called `name`.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        let found = self
            .tensors
            .iter()
            .find(|(tensor, _)| tensor.name == name)?;
        Some(found.0.dtype)
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|(tensor, _)| tensor.bytes()).sum()
    }
}

/// The state of an adapter: by method, from 0 to 2 m n numbers (section "The optimizers").
///
/// | method | tensors |
/// |---|---|
/// | lora, efficient | `exp_avg_a`, `exp_avg_sq_a` (r x n), `exp_avg_b`, `exp_avg_sq_b` (m x r) |
/// | sgd | with momentum: `momentum_a` (r x n), `momentum_b` (m x r) |
/// | factored | `exp_avg_y` (r x n), `exp_avg_z` (m x r), `row_sq` (m x 1), `col_sq` (1 x n) |
/// | full | `exp_avg`, `exp_avg_sq` (m x n) |
///
/// AMSGrad adds `max_` of each second moment. Master copies of 16-bit parameters are `master_a` and
/// `master_b`. 8-bit moments are codes (u8) with scales beside them: `exp_avg_scale` and so on, one
/// f32 number for each block of [`MOMENT_BLOCK`] entries. Only the full mode's tensors follow
/// [`Hyper::moment_dtype`]: the others are small, and stay f32 or, for f64 parameters, f64.
pub fn adapter_layout(spec: &AdapterSpec, hyper: &Hyper) -> Vec<StateTensor> {
    let (m, n, r) = (spec.m, spec.n, spec.r);
    let thin = at_least_f32(spec.dtype);
    let tensor = |name, shape| StateTensor {
        name,
        shape,
        dtype: thin,
    };
    let wide = |name| StateTensor {
        name,
        shape: [m, n],
        dtype: moment_dtype(hyper.moment_dtype, spec.dtype),
    };
    let mut layout = match hyper.method {
        Method::Lora | Method::Efficient => vec![
            tensor("exp_avg_a", [r, n]),
            tensor("exp_avg_sq_a", [r, n]),
            tensor("exp_avg_b", [m, r]),
            tensor("exp_avg_sq_b", [m, r]),
        ],
        Method::Sgd if hyper.momentum == 0.0 => vec![],
        Method::Sgd => vec![tensor("momentum_a", [r, n]), tensor("momentum_b", [m, r])],
        Method::Factored => vec![
            tensor("exp_avg_y", [r, n]),
            tensor("exp_avg_z", [m, r]),
            tensor("row_sq", [m, 1]),
            tensor("col_sq", [1, n]),
        ],
        Method::Full => vec![wide("exp_avg"), wide("exp_avg_sq")],
    };
    if hyper.amsgrad {
        add_maxima(&mut layout);
    }
    add_scales(&mut layout);
    if has_master(hyper.rounding, spec.dtype) {
        layout.push(tensor("master_a", [r, n]));
        layout.push(tensor("master_b", [m, r]));
    }
    layout
}

/// The state of a parameter without a pair: AdamW's `exp_avg` and `exp_avg_sq`.
pub fn param_layout(spec: &ParamSpec, hyper: &Hyper) -> Vec<StateTensor> {
    let dtype = at_least_f32(spec.dtype);
    let tensor = |name| StateTensor {
        name,
        shape: spec.shape(),
        dtype,
    };
    let mut layout = vec![tensor("exp_avg"), tensor("exp_avg_sq")];
    if hyper.amsgrad {
        add_maxima(&mut layout);
    }
    if has_master(hyper.rounding, spec.dtype) {
        layout.push(tensor("master"));
    }
    layout
}

/// Every second moment gets a companion that keeps its maximum.
fn add_maxima(layout: &mut Vec<StateTensor>) {
    for k in 0..layout.len() {
        let name = match layout[k].name {
            "exp_avg_sq" => "max_exp_avg_sq",
            "exp_avg_sq_a" => "max_exp_avg_sq_a",
            "exp_avg_sq_b" => "max_exp_avg_sq_b",
            "row_sq" => "max_row_sq",
            "col_sq" => "max_col_sq",
            _ => continue,
        };
        layout.push(StateTensor { name, ..layout[k] });
    }
}

/// Codes get a companion with their scales.
fn add_scales(layout: &mut Vec<StateTensor>) {
    for k in 0..layout.len() {
        let StateTensor { name, shape, dtype } = layout[k];
        let name = match name {
            "exp_avg" => "exp_avg_scale",
            "exp_avg_sq" => "exp_avg_sq_scale",
            "max_exp_avg_sq" => "max_exp_avg_sq_scale",
            _ => continue,
        };
        if dtype == DType::U8 {
            let blocks = |k: usize| shape[k].div_ceil(MOMENT_BLOCK[k]);
            layout.push(StateTensor {
                name,
                shape: [blocks(0), blocks(1)],
                dtype: DType::F32,
            });
        }
    }
}

fn has_master(rounding: Rounding, storage: DType) -> bool {
    rounding == Rounding::Master && at_least_f32(storage) != storage
}

fn at_least_f32(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

fn moment_dtype(choice: MomentDType, storage: DType) -> DType {
    match choice {
        MomentDType::Auto => at_least_f32(storage),
        MomentDType::F64 => DType::F64,
        MomentDType::F32 => DType::F32,
        MomentDType::Bf16 => DType::Bf16,
        MomentDType::Bits8 => DType::U8,
    }
}

/// The error of a backend that is handed another backend's buffer.
pub fn foreign_buffer(backend: &str, name: &str) -> Error {
    Error::Backend {
        backend: backend.into(),
        reason: format!("state tensor `{name}` is not in this backend's memory"),
    }
}
