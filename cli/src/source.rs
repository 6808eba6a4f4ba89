//! What a run trains on: the network and the data that the options name.

use std::path::Path;

use lora_pro_core::Backend;
use lora_pro_finetune::{Dataset, SmallTask, Task};

use crate::failure::Failure;

/// Where network and data come from.
pub enum Source {
    /// A small network, pre-trained on a part of the data.
    Small {
        /// How it is made.
        task: SmallTask,
        /// All rows.
        data: Dataset,
    },
}

impl Source {
    /// What `--data` names.
    ///
    /// `digits` are embedded, and fine-tuning sees them turned by 90 degrees. Anything else is a CSV
    /// file, of which pre-training and fine-tuning see different rows.
    pub fn of(data: &str) -> Result<Self, Failure> {
        let (task, data) = match data {
            "digits" => (SmallTask::default(), Dataset::digits()?),
            path => (
                SmallTask::without_shift(),
                Dataset::from_csv(Path::new(path))?,
            ),
        };
        Ok(Source::Small { task, data })
    }

    /// The network and the examples.
    pub fn task(&self, backend: Box<dyn Backend>) -> Result<Task, Failure> {
        match self {
            Source::Small { task, data } => Ok(task.prepare(data, backend)?),
        }
    }
}
