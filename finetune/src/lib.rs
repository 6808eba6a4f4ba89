//! LoRA fine-tuning of a real network on real data, to see what LoRA-Pro does.
//!
//! Automatic differentiation and tensors are candle's; adapters, optimizer and adapter files are
//! [`lora_pro_candle`]'s, with whatever backend the caller makes.
//!
//! | module | what |
//! |---|---|
//! | `examples`, `data` | what batches are made of; the embedded digits or a CSV file of numbers |
//! | `network` | a model with its numbers, and how well it does |
//! | `task`, `domain_shift`, `pretrain` | a small network for such data, and what fine-tuning sees anew |
//! | `run`, `adapted`, `trainer`, `checkpoint` | one run: what fixes it, what it trains, its steps, saving and resuming |
//! | `fine_tuned` | what was fine-tuned: to predict with, to be merged and saved |
//! | `gap`, `distance`, `matrix` | ‖g − E‖ / ‖g‖; how far from full fine-tuning's weights; the algebra for both |
//! | `setup`, `method_spec`, `candidate`, `compare`, `run_log`, `comparison` | an experiment, the methods, what it changes for some, all runs, those that are done, what they found |
//!
//! # Entry points
//!
//! [`Compare`] runs everything. [`SmallTask::prepare`], [`MethodSpec::run`] and [`Trainer`] are one
//! run, [`gap_curve`] is one run with its gap measured:
//!
//! ```
//! use lora_pro_finetune::{Dataset, Experiment, MethodSpec, SmallTask, Trainer, gap_curve};
//! # use lora_pro_core::{Backend, Error};
//! # use lora_pro_reference::ReferenceBackend;
//! # fn main() -> Result<(), Error> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let (out, checkpoint) = (folder.path(), folder.path().join("run.safetensors"));
//! let make = || Ok::<Box<dyn Backend>, Error>(Box::new(ReferenceBackend::new()));
//! let mut small = SmallTask::default();
//! # small.pretraining.steps = 5;
//! let task = small.prepare(&Dataset::digits()?, make()?)?;
//!
//! let experiment = Experiment {
//!     steps: 4,
//!     ..Experiment::default()
//! };
//! let method = MethodSpec::find("lora-pro-factored").unwrap();
//! let (lr, seed) = (1e-3, 0);
//! let run = method.run(&experiment, lr, seed);
//! let mut trainer = Trainer::new(&task.base, task.train.clone(), run, make()?)?;
//! while !trainer.finished() {
//!     trainer.step()?;
//!     trainer.save(&checkpoint)?;
//! }
//! println!("{}", trainer.evaluate(task.validation.as_ref())?.value);
//! trainer.peft("base_model.safetensors")?.save(out)?;
//! task.base.save(&out.join("base_model.safetensors"))?;
//!
//! // From where it stood, to the last bit.
//! let resumed = Trainer::load(&checkpoint, &task.base, task.train.clone(), make()?)?;
//! assert_eq!(resumed.steps_done(), 4);
//!
//! let run = method.run(&experiment, lr, seed);
//! let mut trainer = Trainer::new(&task.base, task.train.clone(), run, make()?)?;
//! let curve = gap_curve(&mut trainer, 2, &|_done, _steps| ())?;
//! assert_eq!(curve.len(), 3); // before steps 1, 3 and the last
//! # Ok(()) }
//! ```

mod adapted;
mod candidate;
mod checkpoint;
mod compare;
mod comparison;
mod data;
mod distance;
mod domain_shift;
mod examples;
mod fine_tuned;
mod gap;
mod language_task;
mod matrix;
mod method_spec;
mod network;
mod pretrain;
mod run;
mod run_log;
mod setup;
mod task;
mod text;
mod text_source;
mod text_task;
mod tokenized;
mod tokenized_language;
mod trainer;

pub use candidate::{CHANGEABLE, Variant};
pub use compare::{Compare, MakeBackend, OnProgress};
pub use comparison::{Comparison, MeanStdErr, MethodResult, RateResult, RunResult, Setup};
pub use data::Dataset;
pub use distance::distance;
pub use domain_shift::DomainShift;
pub use examples::{Batch, Examples, Metric, Targets};
pub use fine_tuned::{FineTuned, FineTunedSource, LanguageLoss, base_of};
pub use gap::{Gap, GapPoint, gap_curve};
pub use language_task::LanguageTask;
pub use method_spec::{METHODS, MethodSpec, Trains};
pub use network::{Network, Score, correlation};
pub use pretrain::pretrain;
pub use run::{RunConfig, Trainable};
pub use run_log::RunLog;
pub use setup::{Experiment, Pretraining, SmallTask};
pub use task::Task;
pub use text::{
    ChatTemplate, LanguageDataset, LanguageExample, Message, Role, Segment, Split, Target,
    TargetKind, TextColumns, TextDataset, TextExample, UnlabelledText,
};
pub use text_source::{PreparedText, TextSource};
pub use text_task::TextTask;
pub use tokenized::TokenizedText;
pub use tokenized_language::TokenizedLanguage;
pub use trainer::{History, Trainer};
