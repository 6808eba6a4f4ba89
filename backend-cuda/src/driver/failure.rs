//! The driver's result codes, as errors in words.

use std::ffi::CStr;

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use lora_pro_core::Error;

use crate::NAME;

/// An error of this backend.
pub(crate) fn failure(reason: impl Into<String>) -> Error {
    Error::backend(NAME, reason.into())
}

/// An error that says what was being done, where the driver did not do it.
pub(crate) fn check(result: CUresult, doing: &str) -> Result<(), Error> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(Error::OutOfMemory {
            backend: NAME.into(),
            reason: format!("{doing}: {}", words(result)),
        }),
        code => Err(failure(format!("{doing}: {}", words(code)))),
    }
}

/// What the driver calls a code.
pub(crate) fn words(code: CUresult) -> String {
    let error = DriverError(code);
    let text = |words: Result<&CStr, DriverError>| {
        words.map_or_else(
            |_| format!("code {}", code as u32),
            |words| words.to_string_lossy().into_owned(),
        )
    };
    format!(
        "{} ({})",
        text(error.error_string()),
        text(error.error_name())
    )
}
