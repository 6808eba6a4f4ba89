//! What `--data` names.

use std::path::Path;

use lora_pro_finetune::{Dataset, Experiment};

use crate::failure::Failure;

/// The data called `name`, and the experiment that suits it.
///
/// `digits` are embedded, and fine-tuning sees them turned by 90 degrees. Anything else is a CSV
/// file, of which pre-training and fine-tuning see different rows.
pub fn load(name: &str) -> Result<(Dataset, Experiment), Failure> {
    Ok(match name {
        "digits" => (Dataset::digits()?, Experiment::default()),
        path => (
            Dataset::from_csv(Path::new(path))?,
            Experiment::without_shift(),
        ),
    })
}
