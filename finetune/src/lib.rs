//! LoRA fine-tuning of a real network on real data, to see what LoRA-Pro does.
//!
//! Automatic differentiation, tensors and layers are candle's; the optimizer is
//! [`lora_pro_core::Optimizer`], driven by whatever backend the caller makes.
//!
//! | module | what |
//! |---|---|
//! | `data`, `task` | the embedded digits or a CSV file; its parts, and what fine-tuning sees anew |
//! | `network`, `pretrain` | the frozen network and how it is made |
//! | `lora_linear`, `adapted` | a layer with an adapter; the network with its trained parts |
//! | `bridge` | between candle's memory and core's: what is borrowed, what is copied once per step |
//! | `run`, `trainer`, `checkpoint` | one run: what fixes it, its steps, saving and resuming |
//! | `gap`, `distance`, `matrix` | ‖g − E‖ / ‖g‖; how far from full fine-tuning's weights; the algebra for both |
//! | `peft` | adapter files as PEFT reads and writes them |
//! | `setup`, `contender`, `compare`, `comparison` | the default experiment, the methods, all runs, what they found |
//!
//! # Entry points
//!
//! [`compare`] runs everything. [`Problem::prepare`], [`Contender::run`] and [`Trainer`] are one
//! run, [`gap_curve`] is one run with its gap measured:
//!
//! ```
//! use lora_pro_finetune::{Contender, Dataset, Experiment, Problem, Trainer, gap_curve};
//! # use lora_pro_core::{Backend, Error};
//! # use lora_pro_reference::ReferenceBackend;
//! # fn main() -> Result<(), Error> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let (out, checkpoint) = (folder.path(), folder.path().join("run.safetensors"));
//! let make = || Ok::<Box<dyn Backend>, Error>(Box::new(ReferenceBackend::new()));
//! let data = Dataset::digits()?;
//! let mut experiment = Experiment::default();
//! # experiment.pretraining.steps = 5;
//! experiment.steps = 4;
//!
//! let problem = Problem::prepare(&experiment, &data, make()?)?;
//! let contender = Contender::find("lora-pro-factored").unwrap();
//! let (lr, seed) = (1e-3, 0);
//! let run = contender.run(&experiment, lr, seed);
//! let mut trainer = Trainer::new(&problem.base, &problem.train, run, make()?)?;
//! while !trainer.finished() {
//!     trainer.step()?;
//!     trainer.save(&checkpoint)?;
//! }
//! println!("{}", trainer.accuracy(&problem.validation)?);
//! trainer.peft("base_model.safetensors")?.save(out)?;
//! problem.base.save(&out.join("base_model.safetensors"))?;
//!
//! // From where it stood, to the last bit.
//! let resumed = Trainer::load(&checkpoint, &problem.train, make()?)?;
//! assert_eq!(resumed.steps_done(), 4);
//!
//! let run = contender.run(&experiment, lr, seed);
//! let mut trainer = Trainer::new(&problem.base, &problem.train, run, make()?)?;
//! let curve = gap_curve(&mut trainer, 2, &|_done, _steps| ())?;
//! assert_eq!(curve.len(), 3); // before steps 1, 3 and the last
//! # Ok(()) }
//! ```

mod adapted;
mod bridge;
mod checkpoint;
mod compare;
mod comparison;
mod contender;
mod data;
mod distance;
mod gap;
mod lora_linear;
mod matrix;
mod network;
mod peft;
mod pretrain;
mod run;
mod setup;
mod task;
mod trainer;

pub use compare::{MakeBackend, Progress, compare};
pub use comparison::{Comparison, MethodResult, RateResult, RunResult, Setup, Spread};
pub use contender::{CONTENDERS, Contender};
pub use data::Dataset;
pub use distance::distance;
pub use gap::{Gap, GapPoint, gap_curve};
pub use lora_linear::LoraLinear;
pub use network::Network;
pub use peft::{CONFIG_FILE, MODEL_FILE, PeftAdapter, PeftConfig};
pub use pretrain::pretrain;
pub use run::{Run, Trains};
pub use setup::{Experiment, Pretraining};
pub use task::{Problem, Shift};
pub use trainer::{History, Trainer};
