//! LoRA-Pro for Rust: the optimizer that makes a low-rank adapter's step as near to full
//! fine-tuning's as its rank allows (arXiv 2407.18242).
//!
//! ```
//! use lora_pro::{AdapterIo, AdapterSpec, Config, CpuBackend, MatMut, MatRef, Optimizer};
//!
//! let mut optimizer = Optimizer::new(CpuBackend::new(), Config::default())?;
//! // On a weight of 3 x 2 (out features x in features), with rank 1 and s = alpha / r = 2.
//! let id = optimizer.add_adapter(AdapterSpec::new("layer.0", 3, 2, 1).alpha(2.0))?;
//! let (mut a, mut b) = ([0.5f32, -0.5], [0.0f32; 3]); // r x n and m x r
//! let (grad_a, grad_b) = ([0.0f32; 2], [1.0f32, -2.0, 0.5]); // from a backward pass
//! optimizer.step(&mut [AdapterIo::new(
//!     id,
//!     MatMut::new(&mut a, [1, 2])?,
//!     MatMut::new(&mut b, [3, 1])?,
//!     MatRef::new(&grad_a, [1, 2])?,
//!     MatRef::new(&grad_b, [3, 1])?,
//! )])?;
//! assert!(b[0] < 0.0 && b[1] > 0.0, "against the gradient");
//! # Ok::<(), lora_pro::Error>(())
//! ```
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `cpu` (default) | [`CpuBackend`]: SIMD and threads |
//! | `cuda` | `CudaBackend` for NVIDIA GPUs; it compiles anywhere and loads the driver when used |
//! | `reference` | `ReferenceBackend`: one function per equation, in f64, what the others are held against |
//!
//! A backend of one's own implements [`Backend`]; what it needs is in [`backend`].
//! LoRA layers, an optimizer and PEFT files for candle are the crate `lora-pro-candle`.

pub use lora_pro_core::{
    AdapterId, AdapterIo, AdapterReport, AdapterSpec, Backend, Config, DType, Damping, Determinism,
    Element, Error, Factor, HostTensor, Hyper, Location, Manifest, MatMut, MatRef, Method, Moment,
    MomentDType, OnNonFinite, Optimizer, Parallelism, ParamId, ParamIo, ParamSpec, PerFactor,
    Preset, Rounding, Scale, Schedule, SkippedStep, StateKind, StepReport, TensorData, TensorFile,
    backend, backup_path,
};

#[cfg(feature = "cpu")]
pub use lora_pro_cpu::{self as cpu, CpuBackend};
#[cfg(feature = "cuda")]
pub use lora_pro_cuda::{self as cuda, CudaBackend};
#[cfg(feature = "reference")]
pub use lora_pro_reference::{self as reference, ReferenceBackend};
