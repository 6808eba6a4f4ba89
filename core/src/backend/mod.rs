//! The contract between the optimizer front and what computes.
//!
//! Why it looks as it does:
//!
//! - **A whole model per call.** A CPU gets one parallel region and a GPU a handful of launches
//!   only if they see all adapters at once. A loop over single adapters is the special case.
//! - **Borrowed tensors.** A, B and their gradients stay where candle, torch or a slice has them;
//!   views carry strides, dtype and place ([`crate::MatRef`]).
//! - **State belongs to the front, its memory to the backend.** [`Backend::allocate`] makes a
//!   buffer wherever the backend wants it; the front owns it, names it, saves it.
//! - **No allocation per step.** The front passes its own slots and the caller's list; a backend
//!   keeps scratch memory from step to step. Reports are written into the slots.
//! - **Graph capture.** [`Control::stream`] is the caller's stream; all work goes there. What
//!   changes from step to step (learning rate, step counters) must not be baked into a captured
//!   graph, so counters may live on the device and come home in [`Backend::sync`], which is also
//!   where a device reports a gradient that was not finite.
//! - **Transactional.** Everything is checked before anything is written. If `step` returns an
//!   error, no parameter, no state and no counter has changed.

use serde::{Deserialize, Serialize};

use crate::adapter::{AdapterSpec, ParamSpec};
use crate::config::OnNonFinite;
use crate::error::Error;
use crate::hyper::{Hyper, Rounding};
use crate::io::{AdapterIo, ParamIo};
use crate::report::{AdapterReport, StepReport};
use crate::tensor::{DType, Location};

mod rejection;

pub use crate::report::ratio_or_zero;
pub use crate::state::{
    Buffer, Factor, MOMENT_BLOCK, Moment, State, StateForm, StateKind, StateTensor, adapter_layout,
    foreign_buffer, param_layout,
};
pub use rejection::{FirstNonFinite, Rejection, find_non_finite, reject};

/// Eigenvalues of Gram matrices count as zero up to this many of their rounding errors.
///
/// - Where a Gram matrix is inverted without damping ([`crate::Damping::None`]): up to this times
///   `k f64::EPSILON` times its largest eigenvalue. k is the number of products summed in each of
///   its entries: m for SB, n for SA.
/// - Where the Sylvester equation is solved: sums of an eigenvalue of SB and one of SA, up to this
///   times `r f64::EPSILON` times the sum of the two largest.
///
/// Rounding moves an eigenvalue by up to `k f64::EPSILON` times the largest one. What is below a
/// hundred of these errors has less than two digits, and dividing by it amplifies noise. Every
/// implementation takes the same number, so that all agree on the rank of a rank-deficient factor.
pub const NULL_EIGENVALUE: f64 = 100.0;

/// How far a backend promises to repeat itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Determinism {
    /// The same bits for the same input on the same machine, alone or in any batch (law 13).
    Bitwise,
    /// Results may differ by rounding from run to run.
    Rounding,
}

/// What a backend is and can do: printed, and stored with every result.
///
/// ```
/// use lora_pro_core::{DType, backend::Manifest};
/// let manifest = Manifest::new("mine", env!("CARGO_PKG_VERSION")).dtypes([DType::F32]).threads(4);
/// assert_eq!(manifest.device, "CPU");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// Its name, as asked for on the command line.
    pub name: String,
    /// Version of its crate.
    pub version: String,
    /// The device, in words.
    pub device: String,
    /// Where its tensors must be.
    pub location: Location,
    /// Storage types that it takes for A, B and gradients.
    pub dtypes: Vec<DType>,
    /// Storage types that it takes for state tensors.
    pub state_dtypes: Vec<DType>,
    /// How it can round 16-bit parameters.
    pub roundings: Vec<Rounding>,
    /// Type in which r x r matrices are accumulated and solved.
    pub accumulator_dtype: DType,
    /// The instruction set that runs.
    pub code_path: String,
    /// Threads that it uses.
    pub threads: usize,
    /// What it promises about repeated runs.
    pub determinism: Determinism,
    /// How it was selected: `asked for`, or `auto: ` and why.
    pub selection: String,
}

/// One method for each field: the same manifest with that field replaced.
macro_rules! with_fields {
    ($($field:ident: $argument:ty),+ $(,)?) => {
        impl Manifest {
            $(
                #[doc = concat!("With another [`Manifest::", stringify!($field), "`](#structfield.", stringify!($field), ").")]
                pub fn $field(mut self, $field: $argument) -> Self {
                    self.$field = $field.into();
                    self
                }
            )+
        }
    };
}

with_fields!(
    name: impl Into<String>,
    device: impl Into<String>,
    location: Location,
    dtypes: impl Into<Vec<DType>>,
    state_dtypes: impl Into<Vec<DType>>,
    roundings: impl Into<Vec<Rounding>>,
    accumulator_dtype: DType,
    code_path: impl Into<String>,
    threads: usize,
    determinism: Determinism,
    selection: impl Into<String>,
);

impl Manifest {
    /// The least that a backend on the CPU does: all storage types of parameters, for state too,
    /// rounding to nearest, f64 inside, one thread, the same bits in every run.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Manifest {
            name: name.into(),
            version: version.into(),
            device: "CPU".into(),
            location: Location::Host,
            dtypes: DType::PARAMETERS.to_vec(),
            state_dtypes: DType::PARAMETERS.to_vec(),
            roundings: vec![Rounding::Nearest],
            accumulator_dtype: DType::F64,
            code_path: "portable".into(),
            threads: 1,
            determinism: Determinism::Bitwise,
            selection: "asked for".into(),
        }
    }
}

/// One adapter of the front: what it is, how it is stepped, what it remembers, what it did last.
#[derive(Debug)]
pub struct AdapterSlot {
    /// Name, shape, rank, scale.
    pub spec: AdapterSpec,
    /// The hyper-parameters of its group.
    pub hyper: Hyper,
    /// Step counter and moments.
    pub state: State,
    /// Filled by the backend in each step.
    pub report: AdapterReport,
}

/// One unpaired parameter of the front.
#[derive(Debug)]
pub struct ParamSlot {
    /// Name and shape.
    pub spec: ParamSpec,
    /// The hyper-parameters of its group; only AdamW's matter.
    pub hyper: Hyper,
    /// Step counter and moments.
    pub state: State,
}

/// All slots of a model.
#[derive(Debug)]
pub struct Slots<'s> {
    /// The adapters.
    pub adapters: &'s mut [AdapterSlot],
    /// The unpaired parameters.
    pub params: &'s mut [ParamSlot],
}

/// The tensors of one step; an adapter that is not listed is not stepped.
#[derive(Debug)]
pub struct StepIo<'s, 'a> {
    /// The adapters.
    pub adapters: &'s mut [AdapterIo<'a>],
    /// The unpaired parameters.
    pub params: &'s mut [ParamIo<'a>],
}

/// What concerns the whole step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Control {
    /// Factor on all learning rates: the schedule's times [`crate::Optimizer::set_lr_factor`]'s.
    pub lr_factor: f64,
    /// Factor on all gradients before anything else: 1 / (loss scale * accumulation steps).
    pub grad_scale: f64,
    /// Global-norm clip of all gradients, after `grad_scale`, before the adjustment.
    pub max_grad_norm: Option<f64>,
    /// What to do with a gradient that is not finite.
    pub on_non_finite: OnNonFinite,
    /// The caller's stream (a `CUstream` as an integer; 0 is the default stream). Host backends
    /// ignore it.
    pub stream: u64,
}

/// Something that computes optimizer steps.
pub trait Backend: Send {
    /// What this backend is and can do.
    fn manifest(&self) -> Manifest;

    /// Memory for one state tensor, filled with zeros.
    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error>;

    /// The tensor's row-major little-endian bytes.
    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error>;

    /// Replaces the tensor by row-major little-endian bytes.
    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error>;

    /// Steps every adapter and parameter in `io` once.
    ///
    /// The front has checked ids, shapes, dtypes and places, and that hyper-parameters are valid.
    /// The backend checks that values are finite, writes all or nothing, advances the counters of
    /// what it stepped and fills the reports.
    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error>;

    /// Waits for the device and brings counters and reports home. Nothing to do on a host.
    fn sync(&mut self, _slots: Slots<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// For a backend that wraps another one: hands on what concerns the memory of state tensors,
/// [`Backend::allocate`], [`Backend::download`] and [`Backend::upload`], to the field of this name.
///
/// ```
/// use lora_pro_core::backend::{self, Backend, Buffer, Control, Manifest, Slots, StateTensor, StepIo};
/// use lora_pro_core::{Error, StepReport};
///
/// /// Counts steps.
/// struct Counted<B> {
///     inner: B,
///     steps: u64,
/// }
///
/// impl<B: Backend> Backend for Counted<B> {
///     fn manifest(&self) -> Manifest {
///         self.inner.manifest()
///     }
///
///     backend::forward_memory!(inner);
///
///     fn step(
///         &mut self,
///         slots: Slots<'_>,
///         io: StepIo<'_, '_>,
///         control: &Control,
///     ) -> Result<StepReport, Error> {
///         self.steps += 1;
///         self.inner.step(slots, io, control)
///     }
/// }
/// ```
#[doc(inline)]
pub use crate::__forward_memory as forward_memory;

#[doc(hidden)]
#[macro_export]
macro_rules! __forward_memory {
    ($field:tt) => {
        fn allocate(
            &mut self,
            tensor: &$crate::backend::StateTensor,
        ) -> Result<$crate::backend::Buffer, $crate::Error> {
            self.$field.allocate(tensor)
        }

        fn download(
            &self,
            tensor: &$crate::backend::StateTensor,
            buffer: &$crate::backend::Buffer,
        ) -> Result<Vec<u8>, $crate::Error> {
            self.$field.download(tensor, buffer)
        }

        fn upload(
            &mut self,
            tensor: &$crate::backend::StateTensor,
            buffer: &mut $crate::backend::Buffer,
            bytes: &[u8],
        ) -> Result<(), $crate::Error> {
            self.$field.upload(tensor, buffer, bytes)
        }
    };
}

impl<B: Backend + ?Sized> Backend for Box<B> {
    fn manifest(&self) -> Manifest {
        (**self).manifest()
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        (**self).allocate(tensor)
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        (**self).download(tensor, buffer)
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        (**self).upload(tensor, buffer, bytes)
    }

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        (**self).step(slots, io, control)
    }

    fn sync(&mut self, slots: Slots<'_>) -> Result<(), Error> {
        (**self).sync(slots)
    }
}
