//! From kernels to a library, once.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use lora_pro_core::Error;

use crate::failed;

/// Contraction is off so that every machine rounds alike; a frame must fit the small stack of a
/// fiber; a library stays loaded, for it handles signals.
const FLAGS: &[&str] = &[
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-Werror=return-type",
    "-Werror=uninitialized",
    "-Werror=frame-larger-than=16384",
    "-DLORA_PRO_EMULATOR",
];
const LINK_FLAGS: &[&str] = &["-shared", "-Wl,-z,nodelete"];

/// What the compiler does beside its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checks {
    /// It checks nothing.
    Off,
    /// At every access it checks that vectors are aligned, and that indices are within arrays. It
    /// takes twice the time to compile, and up to five times to run.
    On,
    /// It does not even optimize. It takes a quarter of the time to compile, and three times to run.
    Hasty,
}

impl Checks {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Checks::Off => &[],
            Checks::On => &["-fsanitize=alignment,bounds"],
            Checks::Hasty => &["-O0"],
        }
    }
}

/// The folder of the backend's kernels.
#[must_use]
pub fn kernels() -> PathBuf {
    here("../kernels")
}

/// Compiles the kernels of the folder `sources` (its `all.cu`) into a library in the folder `out`,
/// unless it is there already. Many processes may do so at once.
///
/// # Errors
/// [`Error::Backend`] with the compiler's text, or where there is no compiler; [`Error::File`].
pub fn build(sources: &Path, out: &Path, checks: Checks) -> Result<PathBuf, Error> {
    try_build(&compiler(), sources, out, checks)?
        .map_err(|text| failed(format!("the kernels do not compile as C++:\n{text}")))
}

/// The inner error is what the compiler has against the kernels.
pub(crate) fn try_build(
    compiler: &OsString,
    sources: &Path,
    out: &Path,
    checks: Checks,
) -> Result<Result<PathBuf, String>, Error> {
    let library = out.join(format!(
        "{:016x}.so",
        fingerprint(compiler, sources, checks)?
    ));
    fs::create_dir_all(out).map_err(|error| Error::file(out, error))?;
    let lock = out.join("lock");
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _held = locked.map_err(|error| Error::file(&lock, error))?;
    if library.exists() {
        return Ok(Ok(library));
    }
    let (object, part) = (library.with_extension("o"), library.with_extension("part"));
    let mut compile = Command::new(compiler);
    compile.args(flags()).args(checks.flags());
    compile.arg("-I").arg(sources);
    compile.arg("-I").arg(here("cpp")).arg("-c");
    compile.arg(here("cpp/unit.cpp")).arg("-o").arg(&object);
    let mut link = Command::new(compiler);
    link.args(LINK_FLAGS).arg(&object).arg("-o").arg(&part);
    for command in [compile, link] {
        if let Err(text) = run(command)? {
            return Ok(Err(text));
        }
    }
    // What is there under the last name is whole.
    fs::rename(&part, &library).map_err(|error| Error::file(&library, error))?;
    let _ = fs::remove_file(&object);
    Ok(Ok(library))
}

/// Where libraries are kept: beside the running program in cargo's target folder, else among the
/// temporary files.
pub(crate) fn cache() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let profile = program.ancestors().find(|folder| folder.ends_with("deps"));
    match profile.and_then(Path::parent) {
        Some(profile) => profile.join("cuda-emulator"),
        None => std::env::temp_dir().join("lora-pro-cuda-emulator"),
    }
}

pub(crate) fn compiler() -> OsString {
    std::env::var_os("CXX").unwrap_or_else(|| "g++".into())
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// With the processor's own fused multiply-add where it has one: the same results, much sooner.
fn flags() -> Vec<&'static str> {
    let mut flags = FLAGS.to_vec();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2") {
        flags.extend(["-mfma", "-mavx2"]);
    }
    flags
}

fn run(mut command: Command) -> Result<Result<(), String>, Error> {
    let output = command.output().map_err(|error| {
        let compiler = command.get_program().display();
        failed(format!(
            "no C++ compiler: {compiler}: {error}; install g++ (on Debian and Ubuntu: \
             apt install g++), or name another one in the variable CXX"
        ))
    })?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(output.status.success().then_some(()).ok_or(text))
}

/// Changes with everything that the library depends on.
fn fingerprint(compiler: &OsString, sources: &Path, checks: Checks) -> Result<u64, Error> {
    let mut hasher = DefaultHasher::new();
    (compiler, flags(), checks.flags(), LINK_FLAGS).hash(&mut hasher);
    for folder in [sources, &here("cpp")] {
        for file in files(folder)? {
            let text = fs::read(&file).map_err(|error| Error::file(&file, error))?;
            (file.file_name(), text).hash(&mut hasher);
        }
    }
    Ok(hasher.finish())
}

/// The files of a folder, in the order of their names.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = || -> std::io::Result<Vec<PathBuf>> {
        let paths = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
        let mut files: Vec<_> = paths.collect::<Result<_, _>>()?;
        files.retain(|path| path.is_file());
        files.sort();
        Ok(files)
    };
    listed().map_err(|error| Error::file(folder, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_compiler_is_named_with_what_to_do() {
        let out = tempfile::tempdir().unwrap();
        let missing = OsString::from("no-such-compiler");
        let error =
            try_build(&missing, &here("tests/kernels"), out.path(), Checks::Off).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("no-such-compiler") && text.contains("install g++"),
            "{text}"
        );
    }

    #[test]
    fn what_does_not_compile_comes_with_the_compilers_text() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("all.cu"),
            "#include \"emulator.h\"\nnonsense;\n",
        )
        .unwrap();
        let text = build(folder.path(), folder.path(), Checks::Off)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("all.cu:2") && text.contains("nonsense"),
            "{text}"
        );
    }
}
