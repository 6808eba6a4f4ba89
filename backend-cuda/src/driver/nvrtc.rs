//! The sources compiled on the user's machine, by CUDA's run-time compiler.

use std::ffi::{CStr, CString, c_char, c_int};

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};

/// What came of it.
pub(crate) struct Compiled {
    /// What it is, as in `NVRTC 13.0 sm_90`.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Compiles the first of the sources, which includes the others by their names.
pub(crate) fn compile(sources: &[(&str, &str)], target: &Target) -> Result<Compiled, String> {
    let program = Program::new(sources)?;
    program.compile(&["--std=c++17", &format!("--gpu-architecture={target}")])?;
    let (major, minor) = version()?;
    Ok(Compiled {
        name: format!("NVRTC {major}.{minor} {target}"),
        bytes: if target.machine {
            program.machine_code()?
        } else {
            program.ptx()?
        },
    })
}

/// cudarc panics without the library, and at the first function that it lacks.
fn find_library() -> Result<(), String> {
    // SAFETY: opening the library runs no code but its own.
    if !unsafe { sys::is_culib_present() } {
        return Err("there is no libnvrtc where the system looks for libraries".into());
    }
    // The latest of the functions that are used: CUDA 11.2 brought them.
    for name in ["nvrtcGetCUBIN", "nvrtcGetSupportedArchs"] {
        // SAFETY: the function is not called here.
        if unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err() {
            return Err(format!("libnvrtc is too old: it has no {name}"));
        }
    }
    Ok(())
}

/// What is compiled for.
pub(crate) struct Target {
    number: i32,
    /// Machine code, or PTX for a device that is newer than the compiler.
    pub(crate) machine: bool,
}

impl Target {
    /// The best for a device of this compute capability that the compiler knows.
    pub(crate) fn best((major, minor): (i32, i32)) -> Result<Self, String> {
        find_library()?;
        let device = major * 10 + minor;
        let known = supported()?.into_iter().filter(|known| *known <= device);
        let number = known.max().ok_or_else(|| {
            format!("this compiler knows no device as old as compute capability {major}.{minor}")
        })?;
        Ok(Target {
            number,
            machine: number / 10 == major,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.machine { "sm" } else { "compute" };
        write!(f, "{kind}_{}", self.number)
    }
}

fn supported() -> Result<Vec<c_int>, String> {
    let mut count = 0;
    // SAFETY: `count` is there for the call.
    check(unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) })?;
    let mut known = vec![0; count.max(0) as usize];
    // SAFETY: `known` has as many entries as were asked for.
    check(unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) })?;
    Ok(known)
}

fn version() -> Result<(c_int, c_int), String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both are there for the call.
    check(unsafe { sys::nvrtcVersion(&mut major, &mut minor) })?;
    Ok((major, minor))
}

struct Program(nvrtcProgram);

impl Program {
    fn new(sources: &[(&str, &str)]) -> Result<Self, String> {
        let names = texts(sources.iter().map(|source| source.0))?;
        let bodies = texts(sources.iter().map(|source| source.1))?;
        let (names, bodies) = (pointers(&names), pointers(&bodies));
        let (Some(name), Some(body)) = (names.first(), bodies.first()) else {
            return Err("there are no sources".into());
        };
        let mut program = std::ptr::null_mut();
        // SAFETY: all texts end with a zero and live until the call has copied them; both arrays
        // have as many entries after the first as said.
        check(unsafe {
            sys::nvrtcCreateProgram(
                &mut program,
                *body,
                *name,
                sources.len() as c_int - 1,
                bodies[1..].as_ptr(),
                names[1..].as_ptr(),
            )
        })?;
        Ok(Program(program))
    }

    /// An error is the compiler's own words.
    fn compile(&self, options: &[&str]) -> Result<(), String> {
        let options = texts(options.iter().copied())?;
        let options = pointers(&options);
        // SAFETY: the program is alive, and so are the options during the call.
        let result =
            unsafe { sys::nvrtcCompileProgram(self.0, options.len() as c_int, options.as_ptr()) };
        check(result).map_err(|reason| match self.log() {
            Ok(log) if !log.is_empty() => format!("{reason}\n{log}"),
            _ => reason,
        })
    }

    fn log(&self) -> Result<String, String> {
        // SAFETY: `fetch` gives memory of the size that was asked for.
        let log = fetch(
            |size| unsafe { sys::nvrtcGetProgramLogSize(self.0, size) },
            |text| unsafe { sys::nvrtcGetProgramLog(self.0, text) },
        )?;
        let log = String::from_utf8_lossy(&log);
        Ok(log.trim_end_matches(['\0', '\n']).to_string())
    }

    fn machine_code(&self) -> Result<Vec<u8>, String> {
        // SAFETY: `fetch` gives memory of the size that was asked for.
        fetch(
            |size| unsafe { sys::nvrtcGetCUBINSize(self.0, size) },
            |code| unsafe { sys::nvrtcGetCUBIN(self.0, code) },
        )
    }

    fn ptx(&self) -> Result<Vec<u8>, String> {
        // SAFETY: `fetch` gives memory of the size that was asked for.
        fetch(
            |size| unsafe { sys::nvrtcGetPTXSize(self.0, size) },
            |code| unsafe { sys::nvrtcGetPTX(self.0, code) },
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is alive, and this was its last handle.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

/// Bytes that the compiler first counts and then gives.
fn fetch(
    size: impl FnOnce(*mut usize) -> nvrtcResult,
    give: impl FnOnce(*mut c_char) -> nvrtcResult,
) -> Result<Vec<u8>, String> {
    let mut bytes = 0;
    check(size(&mut bytes))?;
    let mut given = vec![0u8; bytes];
    check(give(given.as_mut_ptr().cast()))?;
    Ok(given)
}

fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<CString>, String> {
    texts
        .map(|text| CString::new(text).map_err(|error| error.to_string()))
        .collect()
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

fn check(result: nvrtcResult) -> Result<(), String> {
    if result == nvrtcResult::NVRTC_SUCCESS {
        return Ok(());
    }
    // SAFETY: what comes back is a text that is always there.
    let words = unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(result)) };
    Err(words.to_string_lossy().into_owned())
}
