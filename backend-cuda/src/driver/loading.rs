//! The kernels on the device, from the best code that the driver takes.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{
    self, CUdevice_attribute, CUfunction, CUfunction_attribute, CUjit_option, CUmodule, CUresult,
};
use lora_pro_core::Error;

use super::context::Context;
use super::failure::{check, failure, words};
use super::{library, nvrtc};
use crate::image;

/// All kernels, loaded.
pub(super) struct Kernels {
    functions: HashMap<&'static str, CUfunction>,
    /// Where the code came from.
    pub(super) code: String,
    module: CUmodule,
    context: Arc<Context>,
}

// SAFETY: a module and its functions may be used from any thread, in their context.
unsafe impl Send for Kernels {}
// SAFETY: the same; nothing changes them.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Tries everything that is embedded and suits the device; then the run-time compiler.
    pub(super) fn load(context: &Arc<Context>) -> Result<Self, Error> {
        let capability = context.capability()?;
        if capability < image::LEAST {
            return Err(failure(too_old(context.ordinal, capability)));
        }
        let _relaxed = context.enter_relaxed()?;
        let mut refused = Vec::new();
        for image in image::choose(capability) {
            let unpacked = image.unpack();
            match unpacked.and_then(|code| Self::new(context, image.name.into(), code)) {
                Ok(kernels) => return Ok(kernels),
                Err(reason) => refused.push(format!("{}: {reason}", image.name)),
            }
        }
        nvrtc::Target::best(capability)
            .and_then(|target| nvrtc::compile(image::SOURCES, &target))
            .and_then(|compiled| Self::new(context, compiled.name, compiled.bytes))
            .or_else(|reason| {
                refused.push(format!("NVRTC: {reason}"));
                Err(failure(nothing_loads(context.ordinal, &refused)?))
            })
    }

    fn new(context: &Arc<Context>, name: String, code: Vec<u8>) -> Result<Self, String> {
        let mut kernels = Kernels {
            functions: HashMap::new(),
            code: name,
            module: load_module(code)?,
            context: context.clone(),
        };
        let shared = context
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
            .map_err(|error| error.to_string())?;
        for name in image::kernels() {
            let function = find(kernels.module, name, shared)?;
            kernels.functions.insert(name, function);
        }
        Ok(kernels)
    }

    pub(super) fn get(&self, name: &str) -> Result<CUfunction, Error> {
        let function = self.functions.get(name).copied();
        function.ok_or_else(|| failure(format!("there is no kernel `{name}`")))
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        if let Ok(_relaxed) = self.context.enter_relaxed() {
            // SAFETY: the module is alive, and its functions are gone with it.
            let _ = unsafe { sys::cuModuleUnload(self.module) };
        }
    }
}

/// An error says what the driver says, and what its compiler adds for PTX.
fn load_module(mut code: Vec<u8>) -> Result<CUmodule, String> {
    // The end of PTX; nothing to machine code.
    code.push(0);
    let mut log = vec![0u8; 4096];
    let mut options = [
        CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), log.len() as *mut c_void];
    let mut module = std::ptr::null_mut();
    // SAFETY: the code ends with a zero; the options have a value each, and the log is as long as
    // said; all of it is there for the call.
    let result = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            code.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    if result == CUresult::CUDA_SUCCESS {
        return Ok(module);
    }
    let log = String::from_utf8_lossy(&log);
    let log = log.trim_matches(['\0', '\n', ' ']);
    let gap = if log.is_empty() { "" } else { "\n" };
    Err(format!("{}{gap}{log}", words(result)))
}

/// Looks a kernel up, before a capture can be under way; it may use all shared memory of a block.
fn find(module: CUmodule, name: &str, shared: i32) -> Result<CUfunction, String> {
    let text = CString::new(name).map_err(|error| error.to_string())?;
    let mut function = std::ptr::null_mut();
    // SAFETY: the module is alive; `text` and `function` are there for the call.
    let result = unsafe { sys::cuModuleGetFunction(&mut function, module, text.as_ptr()) };
    check(result, &format!("looking `{name}` up")).map_err(|error| error.to_string())?;
    let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function is alive.
    let result = unsafe { sys::cuFuncSetAttribute(function, attribute, shared) };
    check(result, &format!("giving `{name}` shared memory")).map_err(|error| error.to_string())?;
    Ok(function)
}

fn too_old(ordinal: usize, (major, minor): (i32, i32)) -> String {
    let (least, point) = image::LEAST;
    format!(
        "device {ordinal} has compute capability {major}.{minor}, but the kernels need \
         {least}.{point}: they use f64 tensor cores"
    )
}

fn nothing_loads(ordinal: usize, refused: &[String]) -> Result<String, Error> {
    let (major, minor) = library::version()?;
    Ok(format!(
        "no code for device {ordinal} can be loaded; the driver knows CUDA {major}.{minor}, and the \
         code was made by CUDA 13.0. What was tried:\n  {}",
        refused.join("\n").replace('\n', "\n  ")
    ))
}
