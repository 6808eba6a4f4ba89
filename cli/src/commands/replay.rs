//! `lora-pro replay`: runs a recorded trajectory again.

use std::path::PathBuf;

use clap::Args;
use lora_pro_conformance::case::Case;
use lora_pro_conformance::replay::{Deviation, replay, tolerance};
use lora_pro_core::{Backend, DType};

use crate::backends::Choice;
use crate::commands::conform;
use crate::failure::Failure;
use crate::output::say;

/// Run a recorded trajectory on a backend, and compare
///
/// CASE holds the factors at the start (A.0, B.0), the full gradients g.1 to g.T and optionally
/// the factors after each step (A.1, B.1 to A.T, B.T), with the hyper-parameters as string
/// metadata: m, n, r, scale, steps, method (efficient, factored, full, sgd, lora), x (sylvester,
/// symmetric, zero), damping, lr, beta1, beta2, eps, weight_decay, and where they are wanted
/// lr_ratio, momentum, amsgrad (true, false), maximize (true, false) and update_clip. At each step
/// the adapter gets gA = s B'g and gB = s g A' at the present A and B, computed in f64 and rounded
/// to the dtype.
///
/// Where the case records the factors, the worst ||x - ref|| / ||ref|| of A or B over all steps is
/// printed, and the exit code is 1 where it is over the tolerance: 1e-10 for f64, and otherwise
/// u * T * sqrt(m + n) with the dtype's unit round-off u (2^-24 for f32, 2^-8 for bf16, 2^-11 for
/// f16). That allows for rounding at every step and not for a case that amplifies it: an
/// ill-conditioned case may legitimately fail in a 16-bit dtype.
///
/// CASE may also be a failure that `lora-pro conform --report` has stored: its safetensors file is
/// followed like any other case, and of its JSON file the check is repeated, as by `conform replay`.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  lora-pro replay conformance/vectors/00-full.safetensors
  lora-pro replay case.safetensors --backend reference --dtype bf16 --out out.safetensors"
)]
pub struct ReplayArgs {
    /// The recorded trajectory
    #[arg(value_name = "CASE")]
    case: PathBuf,
    /// Which backend steps; `lora-pro info` lists them
    #[arg(long, default_value = "auto", value_name = "NAME")]
    backend: String,
    /// Storage type of A, B and their gradients: f64, f32, bf16 or f16
    #[arg(long, default_value = "f64", value_name = "DTYPE")]
    dtype: DType,
    /// Write A.t and B.t for t = 0 to T here; the file is complete or not there at all
    #[arg(long, value_name = "OUT.safetensors")]
    out: Option<PathBuf>,
}

/// Replays, writes, compares.
pub fn run(args: &ReplayArgs) -> Result<(), Failure> {
    if args.case.extension().is_some_and(|kind| kind == "json") {
        let subject = (args.backend != "auto").then_some(args.backend.as_str());
        return conform::repeat(&args.case, subject, None);
    }
    let choice = Choice::of(&args.backend)?;
    let case = Case::read(&args.case)?;
    let trajectory = replay(&case, backend(&choice, &case)?, args.dtype)?;
    if let Some(out) = &args.out {
        let added = [
            ("backend", choice.name().to_string()),
            ("dtype", args.dtype.to_string()),
            (
                "program",
                concat!("lora-pro ", env!("CARGO_PKG_VERSION")).to_string(),
            ),
        ];
        trajectory.write(out, &case, &added)?;
    }
    let steps = case.steps();
    match trajectory.deviation(&case) {
        None => say(&format!(
            "{steps} steps; the case records no factors to compare with"
        )),
        Some(worst) => verdict(worst, tolerance(&case, args.dtype), steps),
    }
}

/// The backend, with the case's quirk where it has one.
fn backend(choice: &Choice, case: &Case) -> Result<Box<dyn Backend>, Failure> {
    match case.backend_for(choice.name()) {
        Ok(Some(backend)) => Ok(backend),
        Ok(None) => Ok(choice.make()?),
        Err(reason) => Err(Failure::Input(format!("{reason}: use --backend reference"))),
    }
}

fn verdict(worst: Deviation, tolerance: f64, steps: usize) -> Result<(), Failure> {
    let Deviation { error, t, factor } = worst;
    let text = format!(
        "{steps} steps; worst scaled error {error:.3e} ({factor}.{t}), tolerance {tolerance:.3e}"
    );
    // Written so that NaN fails.
    match error <= tolerance {
        true => say(&text),
        false => {
            say(&text)?;
            Err(Failure::Run(format!("{factor}.{t} is out of tolerance")))
        }
    }
}
