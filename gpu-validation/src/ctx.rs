//! What all suites share.

use std::path::PathBuf;
use std::sync::Arc;

use lora_pro_core::{Backend, Error};
use lora_pro_cuda::StagedCudaBackend;
use lora_pro_cuda::device::Device;

use crate::effort::Effort;
use crate::gpu::Gpu;

/// A device, and what is to be done with it.
pub struct Ctx {
    /// The device under validation.
    pub device: Arc<dyn Device>,
    /// Its streams, graphs and clock.
    pub gpu: Arc<dyn Gpu>,
    /// How much of everything.
    pub effort: Effort,
    /// The folder of results.
    pub out: PathBuf,
    /// A folder of test programs; without it cargo builds them.
    pub tests: Option<PathBuf>,
    /// A Python with torch.
    pub python: PathBuf,
    /// NVIDIA's `compute-sanitizer`.
    pub sanitizer: PathBuf,
}

impl Ctx {
    /// A backend for host tensors on the device.
    pub fn backend(&self) -> Box<dyn Backend> {
        Box::new(StagedCudaBackend::on(self.device.clone()))
    }

    /// A folder beside the results.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn beside(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.out.join(name);
        std::fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
        Ok(folder)
    }
}
