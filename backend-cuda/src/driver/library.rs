//! The driver's library. cudarc panics without it, and at the first function that it lacks: all is
//! looked up here before anything else is done.

use cudarc::driver::sys::{self, CUresult};
use lora_pro_core::Error;

use super::failure::{check, failure};

/// Every function that is used.
const FUNCTIONS: [&str; 42] = [
    "cuCtxPopCurrent_v2",
    "cuCtxPushCurrent_v2",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphGetNodes",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamIsCapturing",
    "cuStreamSynchronize",
    "cuThreadExchangeStreamCaptureMode",
];

/// Finds the library, and starts it unless it is started.
pub(super) fn start() -> Result<(), Error> {
    // SAFETY: opening the driver's library runs no code but its own.
    if !unsafe { sys::is_culib_present() } {
        return Err(failure("no NVIDIA driver (libcuda) on this machine"));
    }
    if let Some(name) = FUNCTIONS.iter().find(|name| function(name).is_none()) {
        return Err(failure(format!(
            "the NVIDIA driver is too old: its library has no {name}"
        )));
    }
    // SAFETY: it takes nothing, and may be called again.
    match unsafe { sys::cuInit(0) } {
        CUresult::CUDA_ERROR_NO_DEVICE => Err(no_device()),
        result => check(result, "starting the NVIDIA driver"),
    }
}

/// How many devices there are: at least one.
pub(super) fn count() -> Result<usize, Error> {
    start()?;
    let mut count = 0;
    // SAFETY: `count` is there for the call.
    let result = unsafe { sys::cuDeviceGetCount(&mut count) };
    check(result, "counting the devices")?;
    usize::try_from(count)
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(no_device)
}

/// The newest CUDA that the driver knows.
pub(super) fn version() -> Result<(i32, i32), Error> {
    let mut version = 0;
    // SAFETY: `version` is there for the call.
    let result = unsafe { sys::cuDriverGetVersion(&mut version) };
    check(result, "asking for the driver's version")?;
    Ok((version / 1000, version % 1000 / 10))
}

/// A function of the library, which is known to be there.
pub(super) fn function(name: &str) -> Option<unsafe extern "C" fn()> {
    // SAFETY: a function pointer, which is called only as what it is.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) }
        .ok()
        .map(|function| *function)
}

fn no_device() -> Error {
    failure("no CUDA device on this machine, or none that CUDA_VISIBLE_DEVICES leaves")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What stands in the sources is what is looked up.
    #[test]
    fn the_list_is_complete() {
        let sources = [
            include_str!("../driver.rs"),
            include_str!("context.rs"),
            include_str!("event.rs"),
            include_str!("facts.rs"),
            include_str!("graph.rs"),
            include_str!("library.rs"),
            include_str!("loading.rs"),
            include_str!("staging.rs"),
            include_str!("stream.rs"),
        ];
        let used: BTreeSet<&str> = sources
            .iter()
            .flat_map(|source| source.split("sys::cu").skip(1))
            .filter_map(|rest| rest.split_once('('))
            .map(|(name, _)| name)
            .filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
            .filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
            .collect();
        let listed = FUNCTIONS.map(|name| name.trim_start_matches("cu"));
        // What cudarc calls for us: see `failure` and `facts`.
        let indirect = ["GetErrorName", "GetErrorString"];
        let used: BTreeSet<&str> = used.into_iter().chain(indirect).collect();
        assert_eq!(used, BTreeSet::from(listed));
    }
}
