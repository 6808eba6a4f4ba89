//! Every kernel at least once, on small cases, against the reference: what the sanitizer runs.

use lora_pro_conformance::differential::{Case, compare};
use lora_pro_conformance::laws::METHODS;
use lora_pro_conformance::residual::holds;
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_conformance::support::batch::{Batch, adapter, hyper};
use lora_pro_conformance::support::quantized_moments;
use lora_pro_core::{Config, DType, Error, Method, Rounding};

use crate::ctx::Ctx;
use crate::progress::SuiteProgress;
use crate::result::SuiteResults;

/// The name of the suite.
pub const NAME: &str = "small-cases";

/// Tiny; beside the sizes of tiles; of a rank whose matrices do not fit into shared memory.
const SHAPES: [[usize; 3]; 3] = [[3, 2, 1], [65, 129, 5], [70, 60, 56]];

/// Squares of it are numbers of f32; whether squares of what becomes of it are is not plain.
const LARGE: f64 = 2e16;

/// Squares of these may be infinite in f32.
const TOO_LARGE: [f64; 2] = [1e17, 1e36];

/// See the module's head.
///
/// # Errors
/// Those of the backend.
pub fn run(ctx: &Ctx, progress: &SuiteProgress, found: &mut SuiteResults) -> Result<(), Error> {
    let methods = DType::PARAMETERS.map(|dtype| METHODS.map(|method| (dtype, method)));
    let methods = methods.as_flattened();
    for (k, (dtype, method)) in methods.iter().enumerate() {
        progress.set(k, methods.len(), &format!("{method} {dtype}"));
        with_everything(ctx, *dtype, *method, found)?;
    }
    let off = quantized_moments::follow(
        &|| ctx.backend(),
        quantized_moments::specs()[0],
        true,
        quantized_moments::STEPS,
    )?;
    found.check("8-bit moments", off.factors < 1e-4, format!("{off:?}"));
    for method in METHODS {
        let wrong = at_the_edge(ctx, method)?;
        let what = format!("{method}: a step that might overflow, and one that does");
        found.check(what, wrong.is_empty(), wrong.join("; "));
    }
    Ok(())
}

/// W0 that decays, an unpaired parameter, clips, AMSGrad, master copies.
fn with_everything(
    ctx: &Ctx,
    dtype: DType,
    method: Method,
    found: &mut SuiteResults,
) -> Result<(), Error> {
    let (mut worst, mut compared) = (0.0f64, 0);
    for [m, n, r] in SHAPES {
        let rounding = match dtype {
            DType::Bf16 | DType::F16 => Rounding::MasterCopy,
            _ => Rounding::Nearest,
        };
        let hyper = hyper(method)
            .decay_base(true)
            .update_clip(Some(0.3))
            .rounding(rounding);
        let case = Case {
            adapter: adapter(m, n, r, dtype),
            config: Config::from(hyper).max_grad_norm(Some(1.0)),
            grad_scale: 1.0 / 256.0,
            steps: 2,
            unpaired: true,
        };
        let all = compare(&|| ctx.backend(), &case)?;
        worst = if all.ratio.is_nan() {
            f64::NAN
        } else {
            worst.max(all.ratio)
        };
        compared += all.compared;
    }
    let detail = format!("{compared} steps, largest ratio {worst:.2e}");
    found.check(
        format!("{method} in {dtype}"),
        holds(worst) && compared > 0,
        detail,
    );
    Ok(())
}

/// Gradients so large that the device has to ask whether it may go on: a step that comes out well, and
/// steps that may not. What is wrong, in words.
fn at_the_edge(ctx: &Ctx, method: Method) -> Result<Vec<String>, Error> {
    let mut wrong = Vec::new();
    let case = |size_g| CaseSpec {
        size_g,
        ..adapter(20, 30, 2, DType::F32)
    };
    let hyper = hyper(method).lr(1e-3).weight_decay(0.0);
    let large = Case {
        adapter: case(LARGE),
        config: Config::from(hyper),
        grad_scale: 1.0,
        steps: 1,
        unpaired: true,
    };
    let all = compare(&|| ctx.backend(), &large)?;
    if !holds(all.ratio) || all.compared == 0 {
        wrong.push(format!("gradients of {LARGE:e}: {all:?}"));
    }
    for size in TOO_LARGE {
        let mut batch = Batch::start(&|| ctx.backend(), &[case(size)], hyper)?;
        let gradients = batch.gradients(1);
        let before = batch.bits()?;
        let refused = batch.step_with(&gradients).is_err();
        let finite = batch.run.adapters.iter().all(|member| {
            let factors = member.factors();
            let mut numbers = factors.a.iter().chain(factors.b.iter());
            numbers.all(|x| x.is_finite())
        });
        if !finite || (refused && batch.bits()? != before) {
            wrong.push(format!(
                "gradients of {size:e}: finite {finite}, refused {refused}"
            ));
        }
    }
    Ok(wrong)
}
