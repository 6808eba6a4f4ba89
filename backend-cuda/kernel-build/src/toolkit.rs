//! Where the compiler is.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::result::Result;

/// The folder of this crate.
pub const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// The compiler that made the images; another one makes other bytes.
const VERSION: &str = "V13.0.88";

/// A CUDA toolkit: a folder with `bin`.
pub struct Toolkit {
    root: PathBuf,
}

impl Toolkit {
    pub fn find(named: Option<&Path>) -> Result<Self> {
        let root = match named
            .map(Path::to_path_buf)
            .or_else(|| env::var_os("LORA_PRO_CUDA").map(PathBuf::from))
        {
            Some(path) => {
                root(&path).ok_or_else(|| format!("{}: there is no bin/nvcc", path.display()))?
            }
            None => root(&environment()).or_else(in_path).ok_or(
                "there is no nvcc. This makes one, in target/cuda-13.0:\n  \
                 cargo run --release -p lora-pro-cuda-kernels -- install",
            )?,
        };
        let toolkit = Toolkit { root };
        toolkit.check_version()?;
        Ok(toolkit)
    }

    /// A program of the toolkit.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.root.join("bin").join(name));
        // Options of the user's would make other images.
        command.env_remove("NVCC_PREPEND_FLAGS");
        command.env_remove("NVCC_APPEND_FLAGS");
        command
    }

    fn check_version(&self) -> Result<()> {
        let (text, _) = output(self.program("nvcc").arg("--version"))?;
        if text.contains(VERSION) {
            return Ok(());
        }
        Err(format!(
            "{}: the images are made by nvcc {VERSION}, but this is\n{text}",
            self.root.display()
        ))
    }

    /// Runs this program again, so that it finds the toolkit's NVRTC.
    pub fn nvrtc(&self, kernels: &Path) -> Result<()> {
        let mut libraries = OsString::from(self.root.join("lib"));
        libraries.push(":");
        libraries.push(self.root.join("lib64"));
        if let Some(others) = env::var_os("LD_LIBRARY_PATH") {
            libraries.push(":");
            libraries.push(others);
        }
        let program = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["nvrtc".as_ref(), "--kernels".as_ref(), kernels.as_os_str()]);
        let (text, _) = output(command.env("LD_LIBRARY_PATH", libraries))?;
        print!("{text}");
        Ok(())
    }
}

/// What a program wrote to its output and to its error output; an error shows both.
pub fn output(command: &mut Command) -> Result<(String, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok((text, errors));
    }
    Err(format!("{name}: {}\n{text}{errors}", output.status))
}

/// Makes the Python environment, where it is not there with the same packages.
pub fn install() -> Result<()> {
    let environment = environment();
    let requirements = Path::new(PACKAGE).join("requirements.txt");
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| error.to_string());
    let (wanted, installed) = (read(&requirements)?, environment.join("installed.txt"));
    if read(&installed).is_ok_and(|installed| installed == wanted) {
        println!("{} is there", environment.display());
        return Ok(());
    }
    let mut venv = Command::new("python3");
    output(venv.args(["-m", "venv"]).arg(&environment)).map_err(|reason| {
        format!(
            "{reason}\nA Python with its module `venv` is needed; Debian and Ubuntu have it as \
             python3-venv."
        )
    })?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    output(pip.arg("--requirement").arg(&requirements))?;
    Toolkit::find(Some(&environment))?;
    fs::write(&installed, wanted).map_err(|error| error.to_string())?;
    println!("{} is made", environment.display());
    Ok(())
}

fn environment() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| Path::new(PACKAGE).join("../../target"))
        .join("cuda-13.0")
}

/// The toolkit in a folder: the folder itself, or what pip installed there.
fn root(folder: &Path) -> Option<PathBuf> {
    let pythons = fs::read_dir(folder.join("lib")).into_iter().flatten();
    let installed = pythons
        .flatten()
        .map(|python| python.path().join("site-packages/nvidia/cu13"));
    std::iter::once(folder.to_path_buf())
        .chain(installed)
        .find(|root| root.join("bin/nvcc").exists())
}

fn in_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .find(|folder| folder.join("nvcc").is_file())?
        .parent()
        .map(Path::to_path_buf)
}
