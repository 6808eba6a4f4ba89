//! Models on candle whose linear layers can carry LoRA adapters.
//!
//! A [`Model`] holds no numbers. It is a function of [`Parameters`]: tensors under the names that they
//! have in the model's files, adapters on modules, and what is trained. One pass through a model goes
//! by [`Forward`], which applies a module by its name and knows whether the module has an adapter.
//! So adapting, training, merging and saving are the same for all models.
//!
//! | module | what |
//! |---|---|
//! | `parameters` | tensors by name, adapters, what is trained |
//! | `forward` | parameters in one pass: linear layers, norms, embeddings, dropout |
//! | `model` | what a model is, and what goes into it |
//! | `mlp` | linear layers with GELU between them |

#![warn(missing_debug_implementations)]

mod forward;
mod mlp;
mod model;
mod parameters;

pub use forward::Forward;
pub use mlp::Mlp;
pub use model::{Input, Model, Tokens};
pub use parameters::Parameters;
