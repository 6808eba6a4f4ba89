//! LoRA-Pro for Rust: the optimizer that makes a low-rank adapter's step as near to full
//! fine-tuning's as its rank allows (arXiv 2407.18242).
//!
//! This crate is the facade: everything of `lora-pro-core` by its own name, the fast backend as
//! [`cpu`], and the readable f64 implementation as [`reference`](mod@reference). With default features it is also the
//! command `lora-pro`; a library wants `default-features = false`.
//!
//! ```
//! use lora_pro::{AdapterSpec, Config, DType, MatMut, MatRef, Optimizer, AdapterIo, Scale, StepIo};
//! use lora_pro::cpu::CpuBackend;
//!
//! let mut optimizer = Optimizer::new(Box::new(CpuBackend::new()), Config::default())?;
//! let id = optimizer.add_adapter(AdapterSpec {
//!     name: "layer.0".into(),
//!     m: 3, // out features
//!     n: 2, // in features
//!     r: 1,
//!     scale: Scale::Alpha(2.0),
//!     dtype: DType::F32,
//!     group: None,
//! })?;
//! let (mut a, mut b) = ([0.5f32, -0.5], [0.0f32; 3]); // r x n and m x r
//! let (grad_a, grad_b) = ([0.0f32; 2], [1.0f32, -2.0, 0.5]); // from a backward pass
//! optimizer.step(StepIo {
//!     adapters: &mut [AdapterIo {
//!         id,
//!         a: MatMut::new(&mut a, 1, 2)?,
//!         b: MatMut::new(&mut b, 3, 1)?,
//!         grad_a: MatRef::new(&grad_a, 1, 2)?,
//!         grad_b: MatRef::new(&grad_b, 3, 1)?,
//!         base: None,
//!     }],
//!     params: &mut [],
//! })?;
//! assert!(b[0] < 0.0 && b[1] > 0.0, "against the gradient");
//! # Ok::<(), lora_pro::Error>(())
//! ```

pub use lora_pro_core::*;
pub use lora_pro_cpu as cpu;
pub use lora_pro_reference as reference;
