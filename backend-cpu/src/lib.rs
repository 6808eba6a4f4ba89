//! LoRA-Pro on the CPU, at memory speed: core's contract with SIMD kernels, and faer for small
//! systems.
//!
//! ```
//! use lora_pro_core::{AdapterSpec, Config, DType, MatMut, MatRef, Optimizer, AdapterIo, Scale, StepIo};
//! use lora_pro_cpu::CpuBackend;
//!
//! let mut optimizer = Optimizer::new(Box::new(CpuBackend::new()), Config::default())?;
//! let id = optimizer.add_adapter(AdapterSpec {
//!     name: "q".into(),
//!     m: 3,
//!     n: 2,
//!     r: 1,
//!     scale: Scale::Alpha(2.0),
//!     dtype: DType::F32,
//!     group: None,
//! })?;
//! let (mut a, mut b) = ([0.5f32, -0.5], [0.0f32; 3]);
//! optimizer.step(StepIo {
//!     adapters: &mut [AdapterIo {
//!         id,
//!         a: MatMut::new(&mut a, [1, 2])?,
//!         b: MatMut::new(&mut b, [3, 1])?,
//!         grad_a: MatRef::new(&[0.0f32; 2], [1, 2])?,
//!         grad_b: MatRef::new(&[1.0f32, -2.0, 0.5], [3, 1])?,
//!         base: None,
//!     }],
//!     params: &mut [],
//! })?;
//! assert!(b[0] < 0.0 && b[1] > 0.0, "against the gradient");
//! # Ok::<(), lora_pro_core::Error>(())
//! ```
//!
//! How it is built, from the outside in:
//!
//! | module | what |
//! |---|---|
//! | `backend` | the contract: check, survey, solve, commit, for all adapters at once |
//! | `pair`, `param` | one adapter, one parameter without a pair |
//! | `passes` | the loops over what grows with m or n, cut into parts for threads |
//! | `small` | everything r x r, in f64 |
//! | `kernels` | the inner loops over SIMD registers |
//! | `view` | borrowed memory of any strides and type (the only `unsafe`) |
//! | `panel`, `memory`, `scratch` | state and scratch memory, in the order in which it is visited |
//! | `path`, `simd`, `threads`, `spread` | instruction sets and threads |
//!
//! **Types.** Thin tiles are computed in f32, or in f64 where the parameters or the full mode's
//! moments are f64. All Gram and cross products are summed in f64 and all r x r work is f64, whatever
//! the storage type; the small matrices are rounded once, when they are applied.
//!
//! **Determinism.** What is summed in which order depends on shapes alone: the same bits for any
//! number of threads, any batch, any order of adapters. Two instruction sets may differ in the last
//! bits.
//!
//! **All or nothing.** The first pass reads everything that comes in and writes nothing; what is not
//! finite stops the step there. An adapter for which r x r norms do not exclude an overflow is
//! stepped before the others, with a copy to go back to.

mod backend;
mod base;
mod codes;
mod decay;
mod kernels;
mod memory;
mod pair;
mod panel;
mod param;
mod passes;
mod path;
mod plan;
mod refusal;
mod rounding;
mod scratch;
mod simd;
mod small;
mod snapshot;
mod spread;
mod threads;
mod view;

pub use backend::{CpuBackend, NAME, Options};
pub use path::Path;
