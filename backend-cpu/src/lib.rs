//! LoRA-Pro on the CPU, at memory speed: core's contract with SIMD kernels, and faer for small
//! systems.
//!
//! ```
//! use lora_pro_core::{AdapterIo, AdapterSpec, Config, MatMut, MatRef, Optimizer};
//! use lora_pro_cpu::CpuBackend;
//!
//! let mut optimizer = Optimizer::new(CpuBackend::new(), Config::default())?;
//! let (m, n, r) = (3, 2, 1);
//! let id = optimizer.add_adapter(AdapterSpec::new("q", m, n, r).alpha(2.0))?;
//! let (mut a, mut b) = ([0.5f32, -0.5], [0.0f32; 3]);
//! let (grad_a, grad_b) = ([0.0f32; 2], [1.0f32, -2.0, 0.5]);
//! optimizer.step(&mut [AdapterIo::new(
//!     id,
//!     MatMut::new(&mut a, [r, n])?,
//!     MatMut::new(&mut b, [m, r])?,
//!     MatRef::new(&grad_a, [r, n])?,
//!     MatRef::new(&grad_b, [m, r])?,
//! )])?;
//! assert!(b[0] < 0.0 && b[1] > 0.0, "against the gradient");
//! # Ok::<(), lora_pro_core::Error>(())
//! ```
//!
//! How it is built, from the outside in:
//!
//! | module | what |
//! |---|---|
//! | `backend`, `options` | the contract: Gram pass, solve, commit, for all adapters at once |
//! | `adapter`, `param` | one adapter, one unpaired parameter; `adapter` has the table of passes and equations |
//! | `overflow`, `snapshot`, `rejection` | what keeps a step all or nothing |
//! | `passes` | the loops over what grows with m or n, cut into parts for threads |
//! | `rank_sized` | everything r x r, in f64 |
//! | `kernels` | the inner loops over SIMD registers |
//! | `view`, `storage` | borrowed memory of any strides and type; `view` has the only `unsafe` |
//! | `state`, `typed_state` | state tensors in memory, and by method and type |
//! | `panel`, `workspace` | thin and wide matrices in the order in which they are visited; scratch memory |
//! | `codes`, `rounding`, `decay` | 8-bit moments, 16-bit parameters, weight decay |
//! | `simd_level`, `simd`, `threads`, `parallel`, `partition` | instruction sets and threads |
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

mod adapter;
mod backend;
mod codes;
mod decay;
mod kernels;
mod options;
mod overflow;
mod panel;
mod parallel;
mod param;
mod partition;
mod passes;
mod rank_sized;
mod rejection;
mod rounding;
mod simd;
mod simd_level;
mod snapshot;
mod state;
mod storage;
mod threads;
mod typed_state;
mod view;
mod workspace;

pub use backend::CpuBackend;
pub use options::CpuOptions;
pub use simd_level::SimdLevel;

/// The backend's name.
pub const NAME: &str = "cpu";
