//! The same bits twice, alone and in a batch, in another order.

use lora_pro_conformance::batch::{Batch, Bits, all_variants, differing, hyper, mixed};
use lora_pro_conformance::laws::METHODS;
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{DType, Error, Hyper};

use super::Bench;
use crate::progress::Progress;
use crate::result::Found;

/// Steps of a trajectory.
const STEPS: u64 = 3;

/// See the module's head.
///
/// # Errors
/// Those of the backend.
pub fn run(bench: &Bench, progress: &Progress, found: &mut Found) -> Result<(), Error> {
    let methods = DType::PARAMETERS
        .into_iter()
        .flat_map(|dtype| METHODS.map(|method| (dtype, method)));
    let all: Vec<_> = methods.collect();
    for (k, (dtype, method)) in all.iter().enumerate() {
        progress.set(k, all.len(), &format!("{method} {dtype}"));
        let (mut variants, mut wrong) = (0, Vec::new());
        for (moment_dtype, rounding) in all_variants(*dtype) {
            let hyper = hyper(*method).moment_dtype(moment_dtype).rounding(rounding);
            match compare(bench, *dtype, hyper) {
                // 8-bit moments of f64 parameters are not there.
                Err(Error::Unsupported { .. }) => continue,
                Err(error) => return Err(error),
                Ok(parts) => wrong.extend(parts),
            }
            variants += 1;
        }
        let detail = format!(
            "{variants} variants of moments and rounding {}",
            wrong.join("; ")
        );
        let holds = wrong.is_empty() && variants > 0;
        found.check(format!("{method} in {dtype}"), holds, detail.trim_end());
    }
    Ok(())
}

/// What differs, in words.
fn compare(bench: &Bench, dtype: DType, hyper: Hyper) -> Result<Vec<String>, Error> {
    let finish = |specs: &[CaseSpec]| -> Result<Bits, Error> {
        Batch::start(&|| bench.backend(), specs, hyper)?.finish(STEPS)
    };
    let mut specs = mixed(dtype);
    specs.retain(|spec| bench.effort.large || spec.m * spec.n < 10_000);
    let expected = finish(&specs)?;
    let again = finish(&specs)?;
    let mut alone = Bits::new();
    for spec in &specs {
        alone.extend(finish(&[*spec])?);
    }
    specs.reverse();
    specs.swap(0, 1);
    let permuted = finish(&specs)?;
    let all = [("again", again), ("alone", alone), ("permuted", permuted)];
    let differ = all.into_iter().filter_map(|(what, bits)| {
        let names = differing(&bits, &expected);
        let names = (!names.is_empty()).then(|| names.join(", "))?;
        let Hyper {
            moment_dtype,
            rounding,
            ..
        } = hyper;
        Some(format!(
            "{what} ({moment_dtype} moments, {rounding}): {names}"
        ))
    });
    Ok(differ.collect())
}
