//! LoRA-Pro for models on [candle](https://docs.rs/candle-core): on the CPU, in f32, f64, bf16 and
//! f16.
//!
//! | module | what |
//! |---|---|
//! | `linear` | linear layers that compute gradients only for what is trained |
//! | `lora_linear` | a frozen linear layer with a trained adapter |
//! | `optimizer` | the optimizer of all adapters and of what else is trained; its state can be saved |
//! | `peft`, `peft_config` | adapter files as PEFT reads and writes them |
//! | `targets`, `patterns` | which modules get adapters, with which rank and alpha, by PEFT's rules |
//! | [`bridge`] | between candle's memory and core's |
//!
//! ```
//! use candle_core::{Device::Cpu, Module, Tensor};
//! use candle_nn::Linear;
//! use lora_pro::{Config, CpuBackend, Scale};
//! use lora_pro_candle::{LoraLinear, LoraPro};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let frozen = Linear::new(Tensor::randn(0f32, 1., (4, 3), &Cpu)?, None);
//! let seed = 0;
//! let layer = LoraLinear::new("layers.0", frozen, 2, Scale::Alpha(4.0), seed)?;
//! let mut optimizer = LoraPro::new(CpuBackend::new(), Config::default().max_grad_norm(1.0))?;
//! optimizer.add_layer(&layer)?;
//!
//! let x = Tensor::randn(0f32, 1., (8, 3), &Cpu)?;
//! let loss = layer.forward(&x)?.sqr()?.mean_all()?;
//! let report = optimizer.backward_step(&loss)?;
//! assert!(report.grad_norm > 0.0);
//! assert_eq!(optimizer.optimizer().adapters()[0].report.step, 1);
//! # Ok(()) }
//! ```
//!
//! A whole loop with a schedule, checkpoints and an adapter file is `examples/own_model.rs`.

#![warn(missing_debug_implementations)]

pub mod bridge;
mod linear;
mod lora_linear;
mod optimizer;
mod patterns;
mod peft;
mod peft_config;
mod targets;

pub use linear::linear;
pub use lora_linear::LoraLinear;
pub use optimizer::{LoraPro, LoraProConfig};
pub use patterns::Patterns;
pub use peft::{CONFIG_FILE, MODEL_FILE, PeftAdapter};
pub use peft_config::PeftConfig;
pub use targets::{OneOrMore, TargetModules, Targets};
