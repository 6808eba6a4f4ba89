//! The kernels, compiled for every target.

use std::fs;
use std::path::Path;
use std::thread;

use crate::resources::{self, Use};
use crate::result::Result;
use crate::sources;
use crate::toolkit::{Toolkit, output};

/// Machine code for three generations, and PTX for those that come later.
pub const TARGETS: [Target; 4] = [
    Target::machine("sm_80"),
    Target::machine("sm_90"),
    Target::machine("sm_100"),
    Target {
        arch: "compute_80",
        kind: "ptx",
    },
];

pub struct Target {
    pub arch: &'static str,
    /// As nvcc's option and as the file's ending.
    pub kind: &'static str,
}

impl Target {
    const fn machine(arch: &'static str) -> Self {
        Target {
            arch,
            kind: "cubin",
        }
    }

    pub fn is_machine(&self) -> bool {
        self.kind == "cubin"
    }

    /// The image's name.
    pub fn name(&self) -> String {
        format!("lora_pro.{}.{}", self.arch, self.kind)
    }
}

/// No fast math: division, roots and rounding are IEEE's; products and sums are fused. Whatever the
/// compiler warns of is an error, a register that is spilled above all.
const OPTIONS: [&str; 5] = [
    "-std=c++17",
    "--Werror",
    "all-warnings",
    "-Xptxas",
    "-v,-Werror,--warn-on-spills",
];

/// What was compiled.
pub struct Built {
    /// By name, in the order of [`TARGETS`].
    pub images: Vec<(String, Vec<u8>)>,
    /// What the kernels use, as text.
    pub table: String,
}

/// Compiles all targets at once.
pub fn all(toolkit: &Toolkit, kernels: &Path) -> Result<Built> {
    let done: Vec<Result<_>> = thread::scope(|scope| {
        let running = TARGETS.map(|target| scope.spawn(move || one(toolkit, kernels, &target)));
        let joined = running.map(|thread| thread.join().map_err(|_| "a thread failed".to_string()));
        joined.into_iter().map(Result::flatten).collect()
    });
    let mut built = Built {
        images: Vec::new(),
        table: String::new(),
    };
    let (mut uses, mut failures) = (Vec::new(), Vec::new());
    for (target, done) in TARGETS.iter().zip(done) {
        match done {
            Ok((image, used)) => {
                built.images.push((target.name(), image));
                uses.extend(used);
            }
            Err(reason) => failures.push(reason),
        }
    }
    if !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    built.table = resources::table(uses)?;
    Ok(built)
}

fn one(toolkit: &Toolkit, kernels: &Path, target: &Target) -> Result<(Vec<u8>, Vec<Use>)> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = folder.path().join(target.name());
    let mut nvcc = toolkit.program("nvcc");
    nvcc.current_dir(kernels)
        .arg(format!("-{}", target.kind))
        .arg(format!("-arch={}", target.arch))
        .args(OPTIONS)
        .arg("-o")
        .arg(&file)
        .arg(sources::MAIN);
    let (_, log) = output(&mut nvcc)
        .map_err(|reason| format!("{}: {}", target.arch, resources::without(&reason)))?;
    let image = fs::read(&file).map_err(|error| error.to_string())?;
    if !target.is_machine() {
        depends_on_no_folder(&image)?;
    }
    Ok((image, resources::parse(&log, target.arch)))
}

/// nvcc names variables of a single file after the folder that the file is in.
fn depends_on_no_folder(ptx: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(ptx);
    match text.lines().find(|line| line.contains("_INTERNAL_")) {
        None => Ok(()),
        Some(line) => Err(format!(
            "a variable of the device is static or in a namespace without a name, which makes the \
             images depend on the folder where they are compiled:\n  {}",
            line.trim()
        )),
    }
}
