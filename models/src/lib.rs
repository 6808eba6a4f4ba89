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
//! | `bert` | BERT-style encoders that classify or regress |
//! | `llama` | Llama-style decoders: language models, or classification by the last token |
//! | `vit` | image encoders that classify |
//! | `rotary`, `activation` | parts of the models |
//! | `fused` | norms, activations, attention, dropout and loss as single operations of candle's graph |
//! | `load`, `files`, `hub`, `gguf` | models from files: a folder of Hugging Face's layout, a name on its hub, a GGUF file |
//! | `pretrained` | what a model's files must hold |
//! | `head` | what `config.json` says of a model's task and classes |
//! | `model_files` | models to files: configuration and tokenizer beside the tensors |
//! | `text` | text to tokens |

#![warn(missing_debug_implementations)]

mod activation;
mod bert;
mod files;
mod forward;
mod fused;
mod gguf;
mod head;
mod hub;
mod llama;
mod load;
mod mlp;
mod model;
mod model_files;
mod parameters;
mod pretrained;
mod rotary;
mod text;
mod vit;

pub use activation::Activation;
pub use bert::{Bert, BertConfig};
pub use files::Precision;
pub use forward::Forward;
pub use head::{labels, set_labels, usual_labels};
pub use hub::find;
pub use llama::{Llama, LlamaConfig};
pub use load::{Loaded, Task, load, read_config};
pub use mlp::Mlp;
pub use model::{Input, Model, NextTokens, Tokens};
pub use model_files::{ModelFiles, check_new, read_adapted_config, stated_length};
pub use parameters::Parameters;
pub use rotary::RopeParameters;
pub use text::{TextTokenizer, TokenRow};
pub use vit::{Vit, VitConfig};
