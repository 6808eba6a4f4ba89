//! Thousands of steps toward a target of low rank: everything stays finite, the loss falls, and no
//! memory is taken after the first steps. The first hundreds of another run are compared with the
//! reference one by one, each from the same bits: two trajectories of correct backends suite.

use std::sync::Arc;

use lora_pro_bench::work::spec;
use lora_pro_conformance::differential::{Case, compare};
use lora_pro_conformance::laws::METHODS;
use lora_pro_conformance::residual::holds;
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_conformance::support::batch::{adapter, hyper};
use lora_pro_core::{AdapterSpec, Config, DType, Error, Hyper, Method, Preset};
use lora_pro_cuda::device::Device;
use lora_pro_reference::storage::{host, matrix};
use nalgebra::DMatrix;

use crate::counted::{Counted, Counter};
use crate::ctx::Ctx;
use crate::model::DeviceModel;
use crate::progress::SuiteProgress;
use crate::result::SuiteResults;

/// Between looks at the loss and at the memory.
const LOOKS: u64 = 10;

/// See the module's head.
///
/// # Errors
/// Those of the backend.
pub fn run(ctx: &Ctx, progress: &SuiteProgress, found: &mut SuiteResults) -> Result<(), Error> {
    for method in METHODS {
        endure(ctx, progress, method, found)?;
    }
    for (k, method) in METHODS.into_iter().enumerate() {
        progress.set(k, METHODS.len(), &format!("{method} beside the reference"));
        follow(ctx, method, found)?;
    }
    Ok(())
}

/// Seven adapters of the shapes of a layer, smaller.
fn specs(ctx: &Ctx) -> Vec<AdapterSpec> {
    let unit = if ctx.effort.large { 128 } else { 8 };
    let shapes = [[4, 4], [4, 4], [4, 4], [4, 4], [11, 4], [11, 4], [4, 11]];
    let all = shapes.into_iter().enumerate();
    let spec = |(k, [m, n]): (usize, [usize; 2])| {
        spec(format!("adapter {k}"), [m * unit, n * unit], 8.min(unit))
    };
    all.map(spec).collect()
}

/// A learning rate at which the method comes near to the target within the steps of a full run.
fn trained(method: Method) -> Hyper {
    Preset::Recommended.hyper().method(method).lr(match method {
        Method::Sgd => 1e-2,
        Method::Lora | Method::Efficient => 1e-4,
        Method::Factored | Method::Full => 1e-5,
    })
}

fn endure(
    ctx: &Ctx,
    progress: &SuiteProgress,
    method: Method,
    found: &mut SuiteResults,
) -> Result<(), Error> {
    let (steps, refresh) = (ctx.effort.steps, ctx.effort.refresh);
    let counted = Arc::new(Counted::new(ctx.device.clone(), Counter::default()));
    let device: Arc<dyn Device> = counted.clone();
    let stream = ctx.gpu.stream()?;
    let specs = specs(ctx);
    let mut model = DeviceModel::new(&device, &specs, trained(method), stream.raw)?;
    let targets: Vec<Target> = (0..specs.len())
        .map(|k| Target::new(k, &specs[k]))
        .collect();
    start(&mut model, &specs)?;
    let (mut losses, mut settled, mut constant) = (Vec::new(), None, true);
    for t in 0..steps {
        if t % refresh == 0 {
            let loss = aim(&mut model, &targets)?;
            if t % (steps / LOOKS).next_multiple_of(refresh) == 0 {
                progress.set(
                    t as usize,
                    steps as usize,
                    &format!("{method}, loss {loss:.2e}"),
                );
                model.sync()?;
                losses.push(loss);
            }
        }
        model.step()?;
        let now = counted.hook().counts();
        let now = (now.in_use, now.allocations);
        constant &= *settled.get_or_insert(now) == now;
    }
    model.sync()?;
    losses.push(aim(&mut model, &targets)?);
    let finite = losses.iter().all(|loss| loss.is_finite());
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    let counted = model.counters().iter().all(|count| *count == steps);
    let (bytes, _) = settled.unwrap_or_default();
    found.check(
        format!("{method}: {steps} steps are finite and lead to the target"),
        finite && counted && last < ctx.effort.loss * first,
        format!("loss {first:.2e} to {last:.2e}"),
    );
    found.check(
        format!("{method}: no memory is taken after the first step"),
        constant,
        format!("{bytes} bytes in use"),
    );
    Ok(())
}

/// B = 0, as adapters start.
fn start(model: &mut DeviceModel, specs: &[AdapterSpec]) -> Result<(), Error> {
    for (k, spec) in specs.iter().enumerate() {
        let [a, b] = model.factors(k)?;
        let zeros = DMatrix::zeros(spec.m, spec.r);
        model.set_factors(k, &a, &host(&zeros, b.dtype()))?;
    }
    Ok(())
}

/// Gradients where the factors are now; the loss there, over all adapters.
fn aim(model: &mut DeviceModel, targets: &[Target]) -> Result<f64, Error> {
    let mut sum = 0.0;
    for (k, target) in targets.iter().enumerate() {
        let [a, b] = model.factors(k)?;
        let (loss, [grad_a, grad_b]) = target.gradients(&matrix(&a.view()), &matrix(&b.view()));
        let [grad_a, grad_b] = [grad_a, grad_b].map(|x| host(&x, DType::F32));
        model.set_gradients(k, grad_a.bytes(), grad_b.bytes())?;
        sum += loss;
    }
    Ok(sum)
}

/// The loss is |s B A - T|^2 / 2 for a T = B1 A1 of rank r.
struct Target {
    a: DMatrix<f64>,
    b: DMatrix<f64>,
    s: f64,
}

impl Target {
    fn new(k: usize, spec: &AdapterSpec) -> Self {
        let case = adapter(spec.m, spec.n, spec.r, DType::F64);
        let seed = k as u64;
        let factors = CaseSpec { seed, ..case }.factors();
        Target {
            a: factors.a,
            b: factors.b,
            s: spec.s(),
        }
    }

    /// Thin products only: with g = s B A - T, gA = s B'g and gB = s g A'.
    fn gradients(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> (f64, [DMatrix<f64>; 2]) {
        let (bb, bt) = (b.tr_mul(b), b.tr_mul(&self.b));
        let (aa, ta) = (a * a.transpose(), &self.a * a.transpose());
        let grad_a = (&bb * a * self.s - &bt * &self.a) * self.s;
        let grad_b = (b * &aa * self.s - &self.b * &ta) * self.s;
        let tt = (self.b.tr_mul(&self.b) * &self.a * self.a.transpose()).trace();
        let own = (&bb * &aa).trace() * self.s * self.s;
        let both = (&bt * &ta).trace() * self.s;
        (0.5 * (own - 2.0 * both + tt), [grad_a, grad_b])
    }
}

/// Compares step by step.
fn follow(ctx: &Ctx, method: Method, found: &mut SuiteResults) -> Result<(), Error> {
    let case = Case {
        adapter: adapter(192, 160, 8, DType::F32),
        config: Config::from(hyper(method).lr(1e-3)),
        grad_scale: 1.0,
        steps: ctx.effort.followed,
        unpaired: true,
    };
    let all = compare(&|| ctx.backend(), &case)?;
    let (ratio, worst) = (all.ratio, &all.worst);
    found.check(
        format!("{method}: {} steps beside the reference", case.steps),
        holds(ratio) && all.compared == case.steps,
        format!(
            "{} compared, largest ratio {ratio:.2e} ({worst})",
            all.compared
        ),
    );
    Ok(())
}
