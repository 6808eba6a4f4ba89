//! LoRA fine-tuning of a real network on real data, to see what LoRA-Pro does.
//!
//! Automatic differentiation, tensors and layers are candle's; the optimizer is
//! [`lora_pro_core::Optimizer`], driven by whatever backend the caller makes.
//!
//! | module | what |
//! |---|---|
//! | `data`, `task` | the embedded digits or a CSV file; its parts, and what fine-tuning sees anew |
//! | `network`, `pretrain` | the frozen network and how it is made |
//! | `adapted`, `bridge` | the network with its trained parts; between candle's memory and core's |
//! | `run`, `trainer`, `checkpoint` | one run: what fixes it, its steps, saving and resuming |
//! | `gap` | ‖g − E‖ / ‖g‖ |
//! | `peft` | adapter files as PEFT reads and writes them |
//! | `setup`, `contender`, `compare`, `comparison` | the default experiment, the methods, all runs, what they found |
//!
//! # Entry points
//!
//! ```ignore
//! let data = Dataset::digits()?;                       // or Dataset::from_csv(path)?
//! let experiment = Experiment::default();              // or ::without_shift(), for any CSV
//!
//! // Everything at once. `make` makes backends: one per run, on several threads.
//! let found: Comparison = compare(&experiment, &data, &make, &|done, total, what| ...)?;
//!
//! // One run.
//! let problem = Problem::prepare(&experiment, &data, make()?)?;     // splits, pre-trains
//! let contender = Contender::find("lora-pro-factored").unwrap();    // or CONTENDERS
//! let mut run: Run = contender.run(&experiment, lr, seed);          // change any field of it
//! let mut trainer = Trainer::new(&problem.base, &problem.train, run, make()?)?;
//! while !trainer.finished() {                          // all steps taken, or diverged
//!     trainer.step()?;                                 // trainer.losses(), .steps_done(), ...
//!     if ... { trainer.save(&checkpoint)?; }
//! }
//! trainer.accuracy(&problem.validation)?;
//! trainer.peft("base")?.save(&out_dir)?;                  // PeftAdapter::load(&out_dir)?.merge(&base)?
//! let mut trainer = Trainer::load(&checkpoint, &problem.train, make()?)?;   // resume, to the last bit
//!
//! // The gap over training: `every` steps, also at the first and the last.
//! let curve: Vec<GapPoint> = gap_curve(&mut trainer, every, &|step, steps| ...)?;
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
