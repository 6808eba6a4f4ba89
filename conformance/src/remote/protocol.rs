//! The messages, as serde types. The book's chapter on the protocol says the same in words.
//!
//! One JSON object per line; tensors travel in safetensors files whose paths are in the messages.

use std::path::PathBuf;

use lora_pro_core::{DType, Hyper, OnNonFinite};
use serde::{Deserialize, Serialize};

/// Version of the messages. Both sides must speak the same.
pub const PROTOCOL: u32 = 1;

/// Exit status of a child that implements nothing of this at all.
pub const NOT_IMPLEMENTED: i32 = 89;

/// What the kit asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Request {
    /// The first message: which protocol is spoken. Answered by [`Hello`].
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Version of the kit.
        kit: String,
    },
    /// What the child is and can do. Answered by a [`super::Description`].
    Describe,
    /// One step of one session. Answered by [`Stepped`].
    Run(StepRequest),
    /// A session is over, and what is kept for it can go. Answered by [`Done`].
    End {
        /// The session.
        session: u64,
    },
    /// The child is to exit. Needs no answer. The end of its input means the same.
    Stop,
}

/// What the child answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// Done.
    Ok(T),
    /// The child does not do this, and says what it is; nothing has changed.
    Unsupported(String),
    /// It went wrong; nothing has changed.
    Error(Failure),
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The adapter or parameter at fault, where there is one.
    #[serde(default)]
    pub adapter: Option<String>,
    /// For people.
    pub message: String,
}

/// Kinds of failure that a caller can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A tensor holds a NaN or an infinity.
    NonFinite,
    /// Anything else.
    Other,
}

/// The answer to `hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol that the child speaks.
    pub protocol: u32,
}

/// The answer to `end`: an empty object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {}

/// One optimizer step of one session.
///
/// The input file holds, for adapter number k of the list, `k.A`, `k.B`, `k.grad_A`, `k.grad_B`;
/// with `decay_base` also `k.W0`; where `load` is set also the state, `k.<name>`. For parameter
/// number k it holds `param.k.value`, `param.k.grad` and, where `load` is set, `param.k.<name>`.
/// The output file holds what all of these are after the step, gradients left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRequest {
    /// Number of the session; a new number is a new session.
    pub session: u64,
    /// The tensors before the step.
    pub input: PathBuf,
    /// Where the child writes the tensors after the step.
    pub output: PathBuf,
    /// What concerns the whole step.
    pub control: Control,
    /// The adapters that are stepped.
    pub adapters: Vec<Adapter>,
    /// The unpaired parameters that are stepped.
    pub params: Vec<Param>,
}

/// What concerns the whole step: core's `Control` without its stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Factor on all learning rates.
    pub lr_factor: f64,
    /// Factor on all gradients before anything else.
    pub grad_scale: f64,
    /// Global-norm clip of all gradients, after `grad_scale`, before the adjustment.
    pub max_grad_norm: Option<f64>,
    /// What to do with a gradient that is not finite.
    pub on_non_finite: OnNonFinite,
}

/// One adapter of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// Its name, by which the child keeps what it remembers of it.
    pub name: String,
    /// Rows of B.
    pub m: usize,
    /// Columns of A.
    pub n: usize,
    /// Columns of B, rows of A.
    pub r: usize,
    /// The scale s in W = W0 + s B A.
    pub s: f64,
    /// Storage type of A, B and their gradients.
    pub dtype: DType,
    /// The hyper-parameters.
    pub hyper: Hyper,
    /// The step counter t, 1 in the adapter's first step.
    pub t: u64,
    /// Whether the state in the file replaces whatever the child keeps.
    pub load: bool,
}

/// One unpaired parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Storage type.
    pub dtype: DType,
    /// The hyper-parameters; only AdamW's matter.
    pub hyper: Hyper,
    /// The step counter t.
    pub t: u64,
    /// Whether the state in the file replaces whatever the child keeps.
    pub load: bool,
}

/// The answer to `run`. Everything in it is optional: what is left out is computed from the
/// tensors where that is possible.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stepped {
    /// Set where the step was skipped; no file is written then.
    pub skipped: Option<Skipped>,
    /// Global norm of all gradients.
    pub grad_norm: Option<f64>,
    /// What the global-norm clip multiplied the gradients by.
    pub grad_clip: Option<f64>,
    /// One for each adapter, in their order, or none at all.
    pub reports: Vec<Report>,
}

/// Why a step changed nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Name of the adapter or parameter whose gradient was not finite.
    pub adapter: String,
    /// For people.
    pub reason: String,
}

/// What the step did to one adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// |lr dA| and |lr dB|, without weight decay.
    pub update_norm: Option<[f64; 2]>,
    /// |lr dA| / |A| and |lr dB| / |B|, of the master copies where there are any.
    pub relative_update: Option<[f64; 2]>,
    /// ||E||.
    pub equivalent_norm: Option<f64>,
    /// What the update clip multiplied the update by.
    pub clip: Option<f64>,
}
