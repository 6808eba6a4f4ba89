//! What a device is, in words and numbers.

use std::ffi::CStr;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use lora_pro_core::Error;

use super::Driver;
use super::context::Context;
use super::failure::check;
use super::library;

impl Driver {
    /// The device's properties, by name: for reports.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver does not say.
    pub fn facts(&self) -> Result<Vec<(&'static str, String)>, Error> {
        let number = |attribute| self.context.attribute(attribute);
        let (major, minor) = self.context.capability()?;
        let (cuda, point) = library::version()?;
        let shared = number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let kilohertz = number(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
        let bits = number(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
        Ok(vec![
            ("device", name(&self.context)?),
            ("code", self.info.code.clone()),
            ("compute capability", format!("{major}.{minor}")),
            ("driver", format!("CUDA {cuda}.{point}")),
            ("memory", format!("{} bytes", memory(&self.context)?)),
            ("memory bus", format!("{bits} bits at {kilohertz} kHz")),
            (
                "multiprocessors",
                number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.to_string(),
            ),
            ("shared memory per block", format!("{shared} bytes")),
            (
                "L2 cache",
                format!(
                    "{} bytes",
                    number(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?
                ),
            ),
        ])
    }
}

pub(super) fn name(context: &Context) -> Result<String, Error> {
    let mut text = [0u8; 128];
    // One byte less than there is: the text ends with a zero in any case.
    let length = text.len() as i32 - 1;
    // SAFETY: `text` is there for the call, and longer than said.
    let result = unsafe { sys::cuDeviceGetName(text.as_mut_ptr().cast(), length, context.device) };
    check(result, "asking for the device's name")?;
    let name = CStr::from_bytes_until_nul(&text).unwrap_or_default();
    Ok(name.to_string_lossy().into_owned())
}

fn memory(context: &Context) -> Result<usize, Error> {
    let mut bytes = 0;
    // SAFETY: `bytes` is there for the call, and the device is one of the driver's.
    let result = unsafe { sys::cuDeviceTotalMem_v2(&mut bytes, context.device) };
    check(result, "asking for the device's memory")?;
    Ok(bytes)
}
