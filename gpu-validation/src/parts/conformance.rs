//! Every check of the kit in f64 and f32, the reference in 16 bits, 8-bit moments, and how updates
//! reach 16-bit parameters: on host tensors, which are copied over for every step.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use lora_pro_conformance::check::Check;
use lora_pro_conformance::laws::METHODS;
use lora_pro_conformance::record::{Cell, Stability};
use lora_pro_conformance::suite::{Entry, Plan};
use lora_pro_conformance::verdict::Verdict;
use lora_pro_conformance::{coded, differential, rounding, vectors, wild};
use lora_pro_core::{Backend, DType, Error};
use lora_pro_cuda::HostTensors;

use super::Bench;
use crate::VECTORS;
use crate::progress::Progress;
use crate::result::Found;

/// See the module's head.
///
/// # Errors
/// Where the device or a file fails outside of a check.
pub fn run(bench: &Bench, progress: &Progress, found: &mut Found) -> Result<(), Error> {
    unpack_vectors(bench)?;
    matrix(bench, progress, found);
    let make = || bench.backend();
    let dtypes = DType::PARAMETERS.into_iter().enumerate();
    for (k, dtype) in dtypes {
        progress.set(
            k,
            DType::PARAMETERS.len(),
            &format!("wild cases in {dtype}"),
        );
        wild_cases(&make, dtype, bench.effort.wild, found);
    }
    progress.set(0, 1, "moments and rounding");
    short_moments(&make, found)?;
    short_parameters(&make, found)
}

/// The recorded trajectories are carried along; the kit reads files.
fn unpack_vectors(bench: &Bench) -> Result<(), Error> {
    let folder = bench.beside("vectors")?;
    for (name, bytes) in VECTORS {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|error| Error::file(&path, error))?;
    }
    vectors::lies_in(&folder);
    Ok(())
}

/// Laws, vectors and the check against the reference.
fn matrix(bench: &Bench, progress: &Progress, found: &mut Found) {
    let gpu = bench.gpu.clone();
    let entry = Entry {
        name: "cuda".into(),
        command: None,
        make: std::sync::Arc::new(move || -> Box<dyn Backend> {
            Box::new(HostTensors::on(gpu.clone()))
        }),
        class: Stability::KappaSquared,
    };
    let mut plan = Plan::new(0, bench.effort.cases);
    plan.dtypes = DType::PARAMETERS.to_vec();
    plan.limit = Duration::from_secs(60);
    plan.failures = Some(bench.out.join("failures"));
    let cells = plan.cells(&entry);
    let mut of_check: BTreeMap<(String, String), Vec<Cell>> = BTreeMap::new();
    for (k, (check, dtype, method)) in cells.iter().enumerate() {
        progress.set(k, cells.len(), &format!("{} {dtype} {method}", check.id()));
        let cell = plan.cell(&entry, *check, *dtype, *method);
        let key = (check.id(), dtype.to_string());
        of_check.entry(key).or_default().push(cell);
    }
    for check in plan.checks.iter().map(Check::id) {
        for dtype in plan.dtypes.iter().map(DType::to_string) {
            if let Some(cells) = of_check.get(&(check.clone(), dtype.clone())) {
                note(found, &format!("{check} in {dtype}"), cells);
            }
        }
    }
}

/// One check in one storage type, in all methods.
fn note(found: &mut Found, what: &str, cells: &[Cell]) {
    let bad: Vec<&Cell> = cells.iter().filter(|x| !x.verdict.is_fine()).collect();
    let cases: u32 = cells.iter().map(|cell| cell.cases).sum();
    let ratio = cells.iter().map(|cell| cell.ratio).fold(0.0, f64::max);
    // All methods unsupported would be nothing looked at.
    let looked = cells.iter().any(|cell| cell.verdict == Verdict::Pass);
    let mut detail = format!("{cases} cases, largest ratio {ratio:.2e}");
    for cell in &bad {
        let method = cell.method.map(|method| method.to_string());
        let reason = cell.reason.as_deref().unwrap_or_default();
        detail += &format!(
            "; {} {} ratio {:.3e} {reason}",
            cell.verdict.name(),
            method.unwrap_or_default(),
            cell.ratio,
        );
    }
    found.check(what, bad.is_empty() && looked, detail);
}

fn wild_cases(make: &dyn Fn() -> Box<dyn Backend>, dtype: DType, count: u32, found: &mut Found) {
    let what = format!("the reference, wild cases in {dtype}");
    match differential::search(make, &wild::cases(dtype), count) {
        Ok(all) => {
            let (steps, ill) = (all.compared, all.ill_posed);
            let detail = format!(
                "{steps} steps compared, {ill} ill-posed, largest ratio {:.2e} ({})",
                all.ratio, all.worst
            );
            found.check(what, steps > 0, detail);
        }
        Err(failure) => found.check(what, false, failure),
    }
}

/// The kernels of 8-bit and of f32 moments are compiled apart, and may round apart: a hundred times
/// less than this.
const FACTORS: f64 = 1e-4;

/// Steps between neighbouring codes, and what that rounding adds.
const CODES: f64 = 1.01;

/// Standard errors; chance exceeds them once in a million.
const ERRORS: f64 = 5.0;

fn short_moments(make: &dyn Fn() -> Box<dyn Backend>, found: &mut Found) -> Result<(), Error> {
    for amsgrad in [false, true] {
        let off = coded::follow(make, coded::specs()[1], amsgrad, coded::STEPS)?;
        let holds = off.factors <= FACTORS && off.codes <= CODES && off.bias.abs() < ERRORS;
        let with = if amsgrad { " with amsgrad" } else { "" };
        found.check(
            format!("8-bit moments follow f32 ones{with}"),
            holds,
            format!(
                "factors {:.1e} off, codes {:.3} steps, mean {:.1} standard errors",
                off.factors, off.codes, off.bias
            ),
        );
    }
    Ok(())
}

fn short_parameters(make: &dyn Fn() -> Box<dyn Backend>, found: &mut Found) -> Result<(), Error> {
    for dtype in rounding::SHORT {
        let (mut wrong, mut worst) = (Vec::new(), 0.0f64);
        let ([small, large], lr) = (rounding::specs(dtype), rounding::small_lr(dtype));
        for method in METHODS {
            let off = rounding::master(make, small, method, rounding::STEPS)?;
            wrong.extend(off.map(|what| format!("{method}: {what}")));
            worst = worst.max(rounding::stochastic(make, large, method, lr)?);
        }
        let detail = format!("{} methods {}", METHODS.len(), wrong.join("; "));
        let what = format!("master copies of {dtype} are f32's factors, to the last bit");
        found.check(what, wrong.is_empty(), detail.trim_end());
        found.check(
            format!("stochastic rounding to {dtype} has the right mean"),
            worst < ERRORS,
            format!("{worst:.1} standard errors at most"),
        );
    }
    Ok(())
}
