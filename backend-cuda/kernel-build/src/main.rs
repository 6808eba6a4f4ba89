//! Compiles the kernels of the CUDA backend into the images that it embeds, and checks that what is
//! embedded is what the sources give.

mod compare;
mod compile;
mod image;
#[path = "../../src/driver/nvrtc.rs"]
mod nvrtc;
mod resources;
mod result;
mod sass;
mod sources;
mod toolkit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use result::Result;
use toolkit::{PACKAGE, Toolkit};

const HELP: &str = "\
lora-pro-cuda-kernels COMMAND [OPTIONS]

Commands:
  install  puts the CUDA 13.0 compiler into target/cuda-13.0: a Python environment, no GPU needed
  build    compiles the kernels, and rewrites the images and kernels/resources.txt
  check    compiles them elsewhere, and compares; compiles them with NVRTC too
  nvrtc    compiles them with the NVRTC that this process finds

Options:
  --cuda PATH     the compiler: a CUDA toolkit, or a Python environment that has one.
                  Otherwise LORA_PRO_CUDA, target/cuda-13.0, or the nvcc in PATH
  --kernels PATH  the sources (backend-cuda/kernels)
  --images PATH   the images (backend-cuda/images)
";

struct Options {
    cuda: Option<PathBuf>,
    kernels: PathBuf,
    images: PathBuf,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let options = Options::parse(arguments)?;
    match command.as_str() {
        "install" => toolkit::install(),
        "build" => build(&options),
        "check" => check(&options),
        "nvrtc" => nvrtc(&options.kernels),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("there is no command `{other}`\n\n{HELP}")),
    }
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let backend = Path::new(PACKAGE).join("..");
        let mut options = Options {
            cuda: None,
            kernels: backend.join("kernels"),
            images: backend.join("images"),
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next().map(PathBuf::from);
            let value = value.ok_or_else(|| format!("{name} needs a value\n\n{HELP}"))?;
            match name.as_str() {
                "--cuda" => options.cuda = Some(value),
                "--kernels" => options.kernels = value,
                "--images" => options.images = value,
                other => return Err(format!("there is no option {other}\n\n{HELP}")),
            }
        }
        Ok(options)
    }
}

fn build(options: &Options) -> Result<()> {
    let toolkit = Toolkit::find(options.cuda.as_deref())?;
    let built = compile::all(&toolkit, &options.kernels)?;
    for (name, bytes) in &built.images {
        let file = options.images.join(image::file(name));
        let packed = image::pack(bytes)?;
        println!("{name}: {} bytes, {} packed", bytes.len(), packed.len());
        std::fs::write(&file, packed).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let table = options.kernels.join(resources::FILE);
    std::fs::write(&table, &built.table)
        .map_err(|error| format!("{}: {error}", table.display()))?;
    sass::check(&toolkit, &built, &options.kernels)
}

fn check(options: &Options) -> Result<()> {
    let toolkit = Toolkit::find(options.cuda.as_deref())?;
    // Another folder: what depends on where it is compiled is found here, not on another machine.
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    sources::copy(&options.kernels, folder.path())?;
    let built = compile::all(&toolkit, folder.path())?;
    sass::check(&toolkit, &built, &options.kernels)?;
    compare::all(&built, &options.images, &options.kernels)?;
    toolkit.nvrtc(&options.kernels)
}

/// The devices for which NVRTC is tried.
const CAPABILITIES: [(i32, i32); 2] = [(8, 0), (9, 0)];

fn nvrtc(kernels: &Path) -> Result<()> {
    let sources = sources::read(kernels)?;
    let sources: Vec<(&str, &str)> = sources.iter().map(|(a, b)| (&a[..], &b[..])).collect();
    let compile = |capability| {
        let mut target = nvrtc::Target::best(capability)?;
        // The step from PTX to machine code is that of nvcc, and done there.
        target.machine = false;
        let compiled = nvrtc::compile(&sources, &target)?;
        println!("{}: {} bytes", compiled.name, compiled.bytes.len());
        Ok(())
    };
    std::thread::scope(|scope| {
        let running = CAPABILITIES.map(|capability| scope.spawn(move || compile(capability)));
        let joined = running.map(|thread| thread.join().map_err(|_| "a thread failed".to_string()));
        joined.into_iter().try_for_each(Result::flatten)
    })
}
