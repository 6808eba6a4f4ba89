//! Which tensors an optimizer remembers, by method. Same names and shapes on every backend, so
//! that a checkpoint written on one loads on another.

use std::any::Any;

use crate::adapter::{AdapterSpec, ParamSpec};
use crate::error::Error;
use crate::hyper::{Hyper, Method, MomentDType, Rounding};
use crate::tensor::DType;

/// Rows and columns of the blocks that share a scale in 8-bit moments.
pub const MOMENT_BLOCK: [usize; 2] = [6, 64];

/// One of an adapter's two factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Factor {
    /// A, r x n.
    A,
    /// B, m x r.
    B,
}

/// One of Adam's averages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    /// The average of what is followed.
    First,
    /// The average of its squares.
    Second,
    /// The largest second moment so far (AMSGrad).
    MaxSecond,
}

impl Factor {
    /// A and B.
    pub const ALL: [Factor; 2] = [Factor::A, Factor::B];
}

impl Moment {
    /// First, second, largest second.
    pub const ALL: [Moment; 3] = [Moment::First, Moment::Second, Moment::MaxSecond];
}

/// What a state tensor holds. Backends match on it; its name is for files and messages alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKind {
    /// SGD's momentum of one factor.
    Momentum(Factor),
    /// A moment of one factor's update (lora, efficient).
    Factor(Moment, Factor),
    /// Y of the tangent first moment B Y + Z A (factored), r x n.
    TangentY,
    /// Z of the tangent first moment B Y + Z A (factored), m x r.
    TangentZ,
    /// Averaged row means of E.E (factored), m x 1.
    RowMeans,
    /// Averaged column means of E.E (factored), 1 x n.
    ColMeans,
    /// The largest row means so far (factored with AMSGrad), m x 1.
    MaxRowMeans,
    /// The largest column means so far (factored with AMSGrad), 1 x n.
    MaxColMeans,
    /// A moment of the equivalent gradient (full), m x n.
    Weight(Moment),
    /// The scales of that moment's 8-bit codes, one for each block of [`MOMENT_BLOCK`].
    WeightScale(Moment),
    /// The f32 master copy of a 16-bit factor.
    Master(Factor),
    /// A moment of an unpaired parameter.
    Param(Moment),
    /// The f32 master copy of a 16-bit unpaired parameter.
    ParamMaster,
}

/// The shape of a state tensor in symbols: which matrix it lies along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateForm {
    /// r x n, as A.
    A,
    /// m x r, as B.
    B,
    /// m x n, as W.
    Weight,
    /// One entry for each block of an m x n matrix.
    WeightBlocks,
    /// m x 1.
    Column,
    /// 1 x n.
    Row,
    /// rows x cols of an unpaired parameter.
    Param,
}

use StateKind as K;

impl StateKind {
    /// Every kind.
    pub const ALL: [StateKind; 26] = [
        K::Momentum(Factor::A),
        K::Momentum(Factor::B),
        K::Factor(Moment::First, Factor::A),
        K::Factor(Moment::First, Factor::B),
        K::Factor(Moment::Second, Factor::A),
        K::Factor(Moment::Second, Factor::B),
        K::Factor(Moment::MaxSecond, Factor::A),
        K::Factor(Moment::MaxSecond, Factor::B),
        K::TangentY,
        K::TangentZ,
        K::RowMeans,
        K::ColMeans,
        K::MaxRowMeans,
        K::MaxColMeans,
        K::Weight(Moment::First),
        K::Weight(Moment::Second),
        K::Weight(Moment::MaxSecond),
        K::WeightScale(Moment::First),
        K::WeightScale(Moment::Second),
        K::WeightScale(Moment::MaxSecond),
        K::Master(Factor::A),
        K::Master(Factor::B),
        K::Param(Moment::First),
        K::Param(Moment::Second),
        K::Param(Moment::MaxSecond),
        K::ParamMaster,
    ];

    /// The name in checkpoints, reports and the kit's protocol. Unique within one adapter or
    /// parameter.
    pub fn name(self) -> &'static str {
        use Factor::{A, B};
        use Moment::{First, MaxSecond, Second};
        match self {
            K::Momentum(A) => "momentum_a",
            K::Momentum(B) => "momentum_b",
            K::Factor(First, A) => "exp_avg_a",
            K::Factor(First, B) => "exp_avg_b",
            K::Factor(Second, A) => "exp_avg_sq_a",
            K::Factor(Second, B) => "exp_avg_sq_b",
            K::Factor(MaxSecond, A) => "max_exp_avg_sq_a",
            K::Factor(MaxSecond, B) => "max_exp_avg_sq_b",
            K::TangentY => "exp_avg_y",
            K::TangentZ => "exp_avg_z",
            K::RowMeans => "row_sq",
            K::ColMeans => "col_sq",
            K::MaxRowMeans => "max_row_sq",
            K::MaxColMeans => "max_col_sq",
            K::Weight(First) | K::Param(First) => "exp_avg",
            K::Weight(Second) | K::Param(Second) => "exp_avg_sq",
            K::Weight(MaxSecond) | K::Param(MaxSecond) => "max_exp_avg_sq",
            K::WeightScale(First) => "exp_avg_scale",
            K::WeightScale(Second) => "exp_avg_sq_scale",
            K::WeightScale(MaxSecond) => "max_exp_avg_sq_scale",
            K::Master(A) => "master_a",
            K::Master(B) => "master_b",
            K::ParamMaster => "master",
        }
    }

    /// The shape in symbols.
    pub fn form(self) -> StateForm {
        match self {
            K::Momentum(factor) | K::Factor(_, factor) | K::Master(factor) => match factor {
                Factor::A => StateForm::A,
                Factor::B => StateForm::B,
            },
            K::TangentY => StateForm::A,
            K::TangentZ => StateForm::B,
            K::RowMeans | K::MaxRowMeans => StateForm::Column,
            K::ColMeans | K::MaxColMeans => StateForm::Row,
            K::Weight(_) => StateForm::Weight,
            K::WeightScale(_) => StateForm::WeightBlocks,
            K::Param(_) | K::ParamMaster => StateForm::Param,
        }
    }

    /// The factor whose update reads it; `None` where both do, and for unpaired parameters.
    pub fn factor(self) -> Option<Factor> {
        match self.form() {
            StateForm::A => Some(Factor::A),
            StateForm::B => Some(Factor::B),
            _ => None,
        }
    }

    /// The kind that keeps this one's maximum under AMSGrad; only second moments have one.
    fn maximum(self) -> Option<StateKind> {
        match self {
            K::Factor(Moment::Second, factor) => Some(K::Factor(Moment::MaxSecond, factor)),
            K::Weight(Moment::Second) => Some(K::Weight(Moment::MaxSecond)),
            K::Param(Moment::Second) => Some(K::Param(Moment::MaxSecond)),
            K::RowMeans => Some(K::MaxRowMeans),
            K::ColMeans => Some(K::MaxColMeans),
            _ => None,
        }
    }
}

impl std::fmt::Display for StateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Kind, shape and dtype of one state tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateTensor {
    /// What it holds.
    pub kind: StateKind,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Storage type.
    pub dtype: DType,
}

impl StateTensor {
    /// Its name in the checkpoint.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Bytes of its row-major form.
    pub fn bytes(&self) -> usize {
        self.shape[0] * self.shape[1] * self.dtype.size()
    }

    /// Rejects bytes that are too many or too few.
    pub fn check_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() == self.bytes() {
            return Ok(());
        }
        let expected = format!("{} bytes", self.bytes());
        Err(Error::invalid(
            "the optimizer",
            self.name(),
            bytes.len(),
            expected,
        ))
    }
}

/// Memory of one state tensor, of whatever type its backend uses.
pub struct Buffer(Box<dyn Any + Send>);

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Buffer(..)")
    }
}

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
#[derive(Debug, Default)]
pub struct State {
    /// Steps taken, t. Advanced by the backend with each step that it commits, and by nothing
    /// else: a skipped step does not count. (A device that steps in a captured graph counts
    /// there, and brings this number up to date in [`crate::backend::Backend::sync`].)
    pub step: u64,
    /// The tensors, in the order of their layout.
    pub tensors: Vec<(StateTensor, Buffer)>,
}

impl State {
    /// Whether these are the tensors that it holds.
    pub(crate) fn has_layout(&self, layout: &[StateTensor]) -> bool {
        self.tensors.iter().map(|(tensor, _)| tensor).eq(layout)
    }

    /// The tensor of this kind with its buffer; `None` where the layout has none.
    pub fn find(&self, kind: StateKind) -> Option<&(StateTensor, Buffer)> {
        self.tensors.iter().find(|(tensor, _)| tensor.kind == kind)
    }

    /// As [`State::find`], to write.
    pub fn find_mut(&mut self, kind: StateKind) -> Option<&mut (StateTensor, Buffer)> {
        let mut tensors = self.tensors.iter_mut();
        tensors.find(|(tensor, _)| tensor.kind == kind)
    }

    /// The buffer of this kind, which the method needs: an error where it is absent.
    pub fn buffer(&self, kind: StateKind) -> Result<&Buffer, Error> {
        let (_, buffer) = self.find(kind).ok_or_else(|| missing(kind))?;
        Ok(buffer)
    }

    /// As [`State::buffer`], to write.
    pub fn buffer_mut(&mut self, kind: StateKind) -> Result<&mut Buffer, Error> {
        let (_, buffer) = self.find_mut(kind).ok_or_else(|| missing(kind))?;
        Ok(buffer)
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|(tensor, _)| tensor.bytes()).sum()
    }
}

fn missing(kind: StateKind) -> Error {
    Error::invalid("the optimizer", "state", kind, "present for this method")
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
    let mut kinds = method_kinds(hyper);
    if hyper.amsgrad {
        add_maxima(&mut kinds);
    }
    let wide = moment_dtype(hyper.moment_dtype, spec.dtype);
    if wide == DType::U8 {
        add_scales(&mut kinds);
    }
    if has_master(hyper.rounding, spec.dtype) {
        kinds.extend([K::Master(Factor::A), K::Master(Factor::B)]);
    }
    let tensor = |kind: StateKind| StateTensor {
        kind,
        shape: adapter_shape(kind.form(), spec),
        dtype: match kind {
            K::Weight(_) => wide,
            K::WeightScale(_) => DType::F32,
            _ => at_least_f32(spec.dtype),
        },
    };
    kinds.into_iter().map(tensor).collect()
}

/// The state of an unpaired parameter: AdamW's `exp_avg` and `exp_avg_sq`.
pub fn param_layout(spec: &ParamSpec, hyper: &Hyper) -> Vec<StateTensor> {
    let mut kinds = vec![K::Param(Moment::First), K::Param(Moment::Second)];
    if hyper.amsgrad {
        add_maxima(&mut kinds);
    }
    if has_master(hyper.rounding, spec.dtype) {
        kinds.push(K::ParamMaster);
    }
    let tensor = |kind| StateTensor {
        kind,
        shape: spec.shape(),
        dtype: at_least_f32(spec.dtype),
    };
    kinds.into_iter().map(tensor).collect()
}

/// What the method itself remembers, without options.
fn method_kinds(hyper: &Hyper) -> Vec<StateKind> {
    use Factor::{A, B};
    use Moment::{First, Second};
    match hyper.method {
        Method::Lora | Method::Efficient => vec![
            K::Factor(First, A),
            K::Factor(Second, A),
            K::Factor(First, B),
            K::Factor(Second, B),
        ],
        Method::Sgd if hyper.momentum == 0.0 => vec![],
        Method::Sgd => vec![K::Momentum(A), K::Momentum(B)],
        Method::Factored => vec![K::TangentY, K::TangentZ, K::RowMeans, K::ColMeans],
        Method::Full => vec![K::Weight(First), K::Weight(Second)],
    }
}

/// Every second moment gets a companion that keeps its maximum.
fn add_maxima(kinds: &mut Vec<StateKind>) {
    let maxima: Vec<_> = kinds.iter().filter_map(|kind| kind.maximum()).collect();
    kinds.extend(maxima);
}

/// 8-bit codes get a companion with their scales.
fn add_scales(kinds: &mut Vec<StateKind>) {
    let scale = |kind: &StateKind| match *kind {
        K::Weight(moment) => Some(K::WeightScale(moment)),
        _ => None,
    };
    let scales: Vec<_> = kinds.iter().filter_map(scale).collect();
    kinds.extend(scales);
}

fn adapter_shape(form: StateForm, spec: &AdapterSpec) -> [usize; 2] {
    let (m, n, r) = (spec.m, spec.n, spec.r);
    match form {
        StateForm::A => [r, n],
        StateForm::B => [m, r],
        StateForm::Weight | StateForm::Param => [m, n],
        StateForm::WeightBlocks => [m.div_ceil(MOMENT_BLOCK[0]), n.div_ceil(MOMENT_BLOCK[1])],
        StateForm::Column => [m, 1],
        StateForm::Row => [1, n],
    }
}

fn has_master(rounding: Rounding, storage: DType) -> bool {
    rounding == Rounding::MasterCopy && at_least_f32(storage) != storage
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
        MomentDType::EightBit => DType::U8,
    }
}

/// The error of a backend that is handed another backend's buffer.
pub fn foreign_buffer(backend: &str, kind: StateKind) -> Error {
    Error::backend(
        backend,
        format!("state tensor `{kind}` is not in this backend's memory"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Within one adapter or parameter, a name says which tensor is meant.
    #[test]
    fn names_are_unique_within_an_owner() {
        let of_param = |kind: &StateKind| kind.form() == StateForm::Param;
        for owner in [true, false] {
            let kinds = K::ALL.iter().filter(|kind| of_param(kind) == owner);
            let names: Vec<_> = kinds.map(|kind| kind.name()).collect();
            let distinct: std::collections::HashSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len(), "{names:?}");
        }
    }
}
