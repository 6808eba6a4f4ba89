//! LoRA fine-tuning of a real network on real data, to see what LoRA-Pro does.
//!
//! Automatic differentiation and tensors are candle's; adapters, optimizer and adapter files are
//! [`lora_pro_candle`]'s, with whatever backend the caller makes.
//!
//! | module | what |
//! |---|---|
//! | `data`, `domain_shift`, `task` | the embedded digits or a CSV file; what fine-tuning sees anew; the parts of the data |
//! | `network`, `pretrain` | the frozen network and how it is made |
//! | `adapted` | the network with its trained parts |
//! | `run`, `trainer`, `checkpoint` | one run: what fixes it, its steps, saving and resuming |
//! | `gap`, `distance`, `matrix` | ‖g − E‖ / ‖g‖; how far from full fine-tuning's weights; the algebra for both |
//! | `setup`, `method_spec`, `compare`, `comparison` | the default experiment, the methods, all runs, what they found |
//!
//! # Entry points
//!
//! [`compare`] runs everything. [`Task::prepare`], [`MethodSpec::run`] and [`Trainer`] are one
//! run, [`gap_curve`] is one run with its gap measured:
//!
//! ```
//! use lora_pro_finetune::{MethodSpec, Dataset, Experiment, Task, Trainer, gap_curve};
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
//! let task = Task::prepare(&experiment, &data, make()?)?;
//! let method = MethodSpec::find("lora-pro-factored").unwrap();
//! let (lr, seed) = (1e-3, 0);
//! let run = method.run(&experiment, lr, seed);
//! let mut trainer = Trainer::new(&task.base, &task.train, run, make()?)?;
//! while !trainer.finished() {
//!     trainer.step()?;
//!     trainer.save(&checkpoint)?;
//! }
//! println!("{}", trainer.accuracy(&task.validation)?);
//! trainer.peft("base_model.safetensors")?.save(out)?;
//! task.base.save(&out.join("base_model.safetensors"))?;
//!
//! // From where it stood, to the last bit.
//! let resumed = Trainer::load(&checkpoint, &task.train, make()?)?;
//! assert_eq!(resumed.steps_done(), 4);
//!
//! let run = method.run(&experiment, lr, seed);
//! let mut trainer = Trainer::new(&task.base, &task.train, run, make()?)?;
//! let curve = gap_curve(&mut trainer, 2, &|_done, _steps| ())?;
//! assert_eq!(curve.len(), 3); // before steps 1, 3 and the last
//! # Ok(()) }
//! ```

mod adapted;
mod checkpoint;
mod compare;
mod comparison;
mod data;
mod distance;
mod domain_shift;
mod gap;
mod matrix;
mod method_spec;
mod network;
mod pretrain;
mod run;
mod setup;
mod task;
mod trainer;

pub use compare::{MakeBackend, OnProgress, compare};
pub use comparison::{Comparison, MeanStdErr, MethodResult, RateResult, RunResult, Setup};
pub use data::Dataset;
pub use distance::distance;
pub use domain_shift::DomainShift;
pub use gap::{Gap, GapPoint, gap_curve};
pub use method_spec::{METHODS, MethodSpec};
pub use network::Network;
pub use pretrain::pretrain;
pub use run::{RunConfig, Trainable};
pub use setup::{Experiment, Pretraining};
pub use task::Task;
pub use trainer::{History, Trainer};
