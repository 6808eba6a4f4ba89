//! The device on which tests run.

use std::sync::{Arc, OnceLock};

use lora_pro_core::Error;
use lora_pro_cuda::Driver;
use lora_pro_cuda::device::Device;

use crate::compile::Checks;
use crate::device::Emulator;

/// Names the GPU on which tests are to run, by its number; without it they run on the emulator.
pub const VARIABLE: &str = "LORA_PRO_DEVICE";

/// The GPU that [`VARIABLE`] numbers; none where it is not set.
///
/// # Errors
/// [`Error::Invalid`] where it is no number, and [`Error::Backend`] where there is no such GPU.
pub fn gpu() -> Result<Option<Arc<dyn Device>>, Error> {
    static OPENED: OnceLock<Arc<Driver>> = OnceLock::new();
    let Ok(number) = std::env::var(VARIABLE) else {
        return Ok(None);
    };
    if OPENED.get().is_none() {
        let ordinal = number.parse().map_err(|_| {
            Error::invalid("the environment", VARIABLE, &number, "the number of a GPU")
        })?;
        let opened = Arc::new(Driver::new(ordinal)?);
        OPENED.get_or_init(|| opened);
    }
    Ok(OPENED.get().map(|driver| driver.clone() as Arc<dyn Device>))
}

/// That GPU, or an emulator that runs its threads in an order of its own.
///
/// # Errors
/// Those of [`gpu`] and of [`Emulator::new`].
pub fn test_device(checks: Checks, order: i32) -> Result<Arc<dyn Device>, Error> {
    if let Some(gpu) = gpu()? {
        return Ok(gpu);
    }
    let emulator = match checks {
        Checks::On => Emulator::checked(),
        Checks::Off | Checks::Hasty => Emulator::new(),
    };
    Ok(Arc::new(emulator?.with_order(order)))
}
