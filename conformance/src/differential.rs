//! A backend against the f64 reference, one step at a time from identical bits.
//!
//! LoRA-Pro's trajectories are chaotic: N divides by roots that may be small, and the second step
//! is larger than the factor it moves. Two correct backends part after a few steps. So before each
//! step the subject's state and factors are loaded into a reference of the same storage type, and
//! what both make of the same gradients is compared: A, B, W0, every state tensor, unpaired
//! parameters, and the report. The error of each is divided by its bound by rounding
//! ([`crate::error_bounds`]) and by sqrt(m + n + r), and compared with
//! [`crate::residual::THRESHOLD`].
//!
//! Where rounding decides whether an eigenvalue is cut off, two correct backends may differ
//! altogether; such a step is not compared, and counted.

use std::cell::RefCell;

use lora_pro_core::backend::ratio_or_zero;
use lora_pro_core::{
    AdapterSpec, Backend, Config, DType, Error, Factor, HostTensor, OnNonFinite, ParamSpec, Scale,
    StateKind, StepReport, TensorFile,
};
use lora_pro_reference::ReferenceBackend;
use lora_pro_reference::clip::gradient_clip;
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::moments::{load_moments, load_state};
use lora_pro_reference::storage::{host, matrix, read_through_master};
use nalgebra::DMatrix;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::error_bounds::{ErrorBound, StepInput, error_bound, param_error_bound};
use crate::residual::holds;
use crate::run::Run;
use crate::sample::{CaseSpec, uniform};

/// An adapter, how it is stepped, and for how long. A few numbers, never raw matrices.
#[derive(Clone, Debug)]
pub struct Case {
    /// The adapter and its gradients; `dtype` is the storage type.
    pub adapter: CaseSpec,
    /// Hyper-parameters and clip.
    pub config: Config,
    /// 1 / (loss scale): the gradients that are handed in are longer by the loss scale.
    pub grad_scale: f64,
    /// Steps.
    pub steps: u64,
    /// Step an unpaired parameter beside the adapter.
    pub unpaired: bool,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// The largest ratio of an error and its bound.
    pub ratio: f64,
    /// What had it, and when.
    pub worst: String,
    /// Steps that were compared.
    pub compared: u64,
    /// Steps that were ill-posed.
    pub ill_posed: u64,
}

impl Finding {
    fn note(&mut self, ratio: f64, what: impl FnOnce() -> String) {
        // A NaN is worse than everything.
        if ratio.total_cmp(&self.ratio).is_gt() {
            (self.ratio, self.worst) = (ratio, what());
        }
    }
}

/// Steps a case on the subject, comparing every step with the reference's.
///
/// # Errors
/// What both refuse or skip ends the case and is no error; what only one of them refuses is a
/// finding of infinite ratio. Errors are what goes wrong around the steps.
pub fn compare(make: &dyn Fn() -> Box<dyn Backend>, case: &Case) -> Result<Finding, Error> {
    let mut subject = start(make(), case)?;
    let mut finding = Finding::default();
    for t in 1..=case.steps {
        let mut reference = subject.moved_to(Box::new(ReferenceBackend::new()))?;
        if t == 2 {
            subject = subject.moved_to(make())?;
        }
        let gradients = Handed::of(case, &subject, t);
        if !rejects_non_finite(&mut subject, case, &gradients)? {
            finding.note(f64::INFINITY, || {
                format!("a gradient that is not finite before step {t}")
            });
            break;
        }
        // Where a gradient has overflowed both refuse, and there is nothing to bound.
        let bounds = Bounds::of(case, &reference, &gradients, t);
        let (found, expected) = match (gradients.step(&mut subject), gradients.step(&mut reference))
        {
            // A gradient that has overflowed in its storage type: neither has anything to show.
            (Ok(found), Ok(expected)) if found.skipped.is_some() && expected.skipped.is_some() => {
                break;
            }
            (Ok(found), Ok(expected)) => (found, expected),
            (Err(error @ Error::Unsupported { .. }), _) => return Err(error),
            (Err(_), Err(_)) => break,
            (Err(error), _) => {
                finding.note(f64::INFINITY, || format!("step {t} is refused: {error}"));
                break;
            }
            (_, Err(error)) => {
                finding.note(f64::INFINITY, || {
                    format!("step {t} is not refused: {error}")
                });
                break;
            }
        };
        let Some(bounds) = bounds? else {
            finding.ill_posed += 1;
            continue;
        };
        finding.compared += 1;
        let found = StepResults::of(&mut subject, &found)?;
        let expected = StepResults::of(&mut reference, &expected)?;
        let (ratio, worst) = found.worst(&expected, &bounds, dimension(&case.adapter));
        finding.note(ratio, || format!("{worst} in step {t}"));
    }
    Ok(finding)
}

/// Compares random cases, always the same ones, until one is past the threshold: an error then, with
/// the case made smaller. Else what all of them together have found.
///
/// # Errors
/// The failing case in words.
pub fn search(
    make: &dyn Fn() -> Box<dyn Backend>,
    cases: &impl Strategy<Value = Case>,
    count: u32,
) -> Result<Finding, String> {
    let config = Runs {
        cases: count,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Runs::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::default());
    let mut runner = TestRunner::new_with_rng(config, rng);
    let total = RefCell::new(Finding::default());
    let outcome = runner.run(cases, |case| {
        let finding =
            compare(make, &case).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut total = total.borrow_mut();
        total.compared += finding.compared;
        total.ill_posed += finding.ill_posed;
        total.note(finding.ratio, || finding.worst.clone());
        match holds(finding.ratio) {
            true => Ok(()),
            false => Err(TestCaseError::fail(format!("{finding:?}"))),
        }
    });
    outcome.map_err(|failure| failure.to_string())?;
    Ok(total.into_inner())
}

fn dimension(spec: &CaseSpec) -> f64 {
    ((spec.m + spec.n + spec.r) as f64).sqrt()
}

/// An adapter with its W0 and, where the case has one, an unpaired parameter, at t = 0.
fn start(backend: Box<dyn Backend>, case: &Case) -> Result<Run, Error> {
    let spec = &case.adapter;
    let mut run = Run::new(backend, case.config.clone())?;
    run.optimizer.set_grad_scale(case.grad_scale)?;
    let adapter = AdapterSpec::new("adapter", spec.m, spec.n, spec.r)
        .scale(Scale::Explicit(spec.s))
        .dtype(spec.dtype);
    run.add_adapter(adapter, &spec.factors())?;
    let w0 = uniform(&mut spec.random(101), spec.m, spec.n);
    run.adapters[0].w0 = Some(host(&w0, spec.dtype));
    if case.unpaired {
        let value = uniform(&mut spec.random(100), 1, spec.m);
        let param = ParamSpec::new("parameter", 1, spec.m).dtype(spec.dtype);
        run.add_param(param, &value)?;
    }
    Ok(run)
}

/// What is handed in: the loss scale is in it.
#[derive(Clone)]
struct Handed {
    adapter: (HostTensor, HostTensor),
    param: Option<HostTensor>,
}

impl Handed {
    fn of(case: &Case, run: &Run, t: u64) -> Self {
        let spec = &case.adapter;
        let pair = spec.gradients(&run.factors(), t);
        let param = uniform(&mut spec.random(1000 + t), 1, spec.m) * spec.size_g;
        let scaled = |values: &DMatrix<f64>| host(&(values / case.grad_scale), spec.dtype);
        Handed {
            adapter: (scaled(&pair.a), scaled(&pair.b)),
            param: case.unpaired.then(|| scaled(&param)),
        }
    }

    /// With NaN as the last entry of the last tensor.
    fn broken(&self) -> Self {
        let mut broken = self.clone();
        let last = broken.param.as_mut().unwrap_or(&mut broken.adapter.1);
        let [rows, cols] = last.shape();
        last.view_mut().set(rows - 1, cols - 1, f64::NAN);
        broken
    }

    fn step(&self, run: &mut Run) -> Result<StepReport, Error> {
        let (adapter, param) = (std::slice::from_ref(&self.adapter), self.param.as_slice());
        run.step_tensors(adapter, param)
    }
}

/// Whether a step with a gradient that is not finite is refused or skipped, as the case has it,
/// and changes nothing.
fn rejects_non_finite(run: &mut Run, case: &Case, gradients: &Handed) -> Result<bool, Error> {
    let (before, t) = (run.tensors()?, run.t());
    let outcome = gradients.broken().step(run);
    let rejected = match case.config.on_non_finite {
        OnNonFinite::Error => outcome.is_err(),
        OnNonFinite::Skip => outcome?.skipped.is_some(),
    };
    Ok(rejected && run.t() == t && run.tensors()? == before)
}

/// How far rounding may put the results of one step.
struct Bounds {
    adapter: ErrorBound,
    param: Option<ErrorBound>,
    /// |A| and |B| before the step.
    norms: [f64; 2],
}

impl Bounds {
    /// Of the step that comes; `None` where it is ill-posed.
    fn of(case: &Case, reference: &Run, handed: &Handed, t: u64) -> Result<Option<Self>, Error> {
        let scaled = |tensor: &HostTensor| matrix(&tensor.view()) * case.grad_scale;
        let (a, b) = (scaled(&handed.adapter.0), scaled(&handed.adapter.1));
        let param = handed.param.as_ref().map(scaled);
        let of_param = param.as_ref().map_or(0.0, DMatrix::norm_squared);
        let norm = (a.norm_squared() + b.norm_squared() + of_param).sqrt();
        let clip = gradient_clip(case.config.max_grad_norm, norm);

        let slot = &reference.optimizer.adapters()[0];
        let dtype = case.adapter.dtype;
        let stored = reference.factors();
        let read = |values, factor| {
            read_through_master(values, &slot.state, StateKind::Master(factor), dtype)
        };
        let factors = Factors {
            a: read(stored.a, Factor::A)?,
            b: read(stored.b, Factor::B)?,
            s: stored.s,
        };
        let hyper = case.config.hyper;
        let hyper = hyper.lr(hyper.lr * case.config.schedule.factor(t));
        let input = StepInput {
            hyper: &hyper,
            storage: dtype,
            t,
            factors: &factors,
            gradients: &FactorPair { a, b }.scaled(clip),
            memory: &load_state(&slot.hyper, &slot.state)?,
        };
        let Some(adapter) = error_bound(&input)? else {
            return Ok(None);
        };
        let param = match (reference.optimizer.params().first(), param) {
            (Some(slot), Some(gradient)) => {
                let old = load_moments(&slot.state, StateKind::Param, slot.hyper.amsgrad)?;
                let value = matrix(&reference.params[0].value.view());
                Some(param_error_bound(&input, &old, &value, &(gradient * clip)))
            }
            _ => None,
        };
        let norms = [factors.a.norm(), factors.b.norm()];
        Ok(Some(Bounds {
            adapter,
            param,
            norms,
        }))
    }

    /// Of one result; `None` where no digit is due.
    fn get(&self, result: Quantity) -> Option<f64> {
        let state = |bound: &ErrorBound, kind| {
            let mut known = bound.state.iter();
            known
                .find(|(known, _)| *known == kind)
                .and_then(|(_, bound)| *bound)
        };
        let place = |factor| match factor {
            Factor::A => 0,
            Factor::B => 1,
        };
        match result {
            Quantity::Factor(factor) | Quantity::State(StateKind::Master(factor)) => {
                Some(self.adapter.factors[place(factor)])
            }
            Quantity::Param | Quantity::State(StateKind::ParamMaster) => {
                Some(self.param.as_ref()?.factors[0])
            }
            Quantity::State(kind @ StateKind::Param(_)) => state(self.param.as_ref()?, kind),
            Quantity::State(kind) => state(&self.adapter, kind),
            Quantity::W0 | Quantity::Number => Some(0.0),
            Quantity::Clip => Some(self.adapter.clip),
            Quantity::Equivalent => Some(self.adapter.equivalent),
            Quantity::Update(factor) => Some(self.adapter.update[place(factor)]),
            // What is measured against a factor that is zero has no scale.
            Quantity::RelativeUpdate(factor) => match self.norms[place(factor)] {
                0.0 => None,
                norm => Some(self.adapter.update[place(factor)] / norm),
            },
        }
    }
}

/// What a step leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Quantity {
    Factor(Factor),
    W0,
    Param,
    State(StateKind),
    /// A number of the report that is computed in f64 from what is handed in.
    Number,
    Clip,
    Equivalent,
    Update(Factor),
    RelativeUpdate(Factor),
}

/// All that a step leads to.
struct StepResults(Vec<Measured>);

/// One result, with the rounding of the type that it is stored in.
struct Measured {
    what: Quantity,
    name: &'static str,
    values: DMatrix<f64>,
    rounding: f64,
}

impl StepResults {
    /// Every tensor, and the report.
    fn of(run: &mut Run, report: &StepReport) -> Result<Self, Error> {
        let saved = run.saved()?;
        let mut all = Vec::new();
        let mut tensor =
            |what, name, tensor: &HostTensor| all.push(Measured::tensor(what, name, tensor));
        let adapter = &run.adapters[0];
        tensor(Quantity::Factor(Factor::A), "A", &adapter.a);
        tensor(Quantity::Factor(Factor::B), "B", &adapter.b);
        for w0 in adapter.w0.iter() {
            tensor(Quantity::W0, "W0", w0);
        }
        for param in &run.params {
            tensor(Quantity::Param, "the unpaired parameter", &param.value);
        }
        let adapters = run
            .optimizer
            .adapters()
            .iter()
            .map(|slot| (&slot.spec.name, &slot.state));
        let params = run
            .optimizer
            .params()
            .iter()
            .map(|slot| (&slot.spec.name, &slot.state));
        for (owner, state) in adapters.chain(params) {
            for (described, _) in &state.tensors {
                let kind = described.kind;
                let found = saved_tensor(&saved, &format!("state.{owner}.{kind}"))?;
                tensor(Quantity::State(kind), kind.name(), &found);
            }
        }
        let adapter = run.report();
        // Norms are sums of squares in f64 of what was computed.
        let u = DType::F32.unit_roundoff();
        let mut number = |what, name, x, u| all.push(Measured::number(what, name, x, u));
        number(
            Quantity::Number,
            "the report's step",
            adapter.step as f64,
            0.0,
        );
        number(
            Quantity::Number,
            "the report's lr_factor",
            report.lr_factor,
            0.0,
        );
        number(
            Quantity::Number,
            "the report's global grad_norm",
            report.grad_norm,
            u,
        );
        number(
            Quantity::Number,
            "the report's grad_clip",
            report.grad_clip,
            u,
        );
        number(Quantity::Clip, "the report's clip", adapter.clip, 0.0);
        number(
            Quantity::Equivalent,
            "the report's equivalent_norm",
            adapter.equivalent_norm,
            u,
        );
        for factor in Factor::ALL {
            number(
                Quantity::Number,
                "the report's grad_norm",
                adapter.grad_norm.of(factor),
                u,
            );
            let update = Quantity::Update(factor);
            number(
                update,
                "the report's update_norm",
                adapter.update_norm.of(factor),
                0.0,
            );
            let relative = Quantity::RelativeUpdate(factor);
            number(
                relative,
                "the report's relative_update",
                adapter.relative_update.of(factor),
                0.0,
            );
        }
        Ok(StepResults(all))
    }

    /// The largest ratio of a result's error and what explains it, and whose it is.
    fn worst(
        &self,
        expected: &StepResults,
        bounds: &Bounds,
        dimension: f64,
    ) -> (f64, &'static str) {
        let mut worst = (0.0, "");
        for (found, exact) in self.0.iter().zip(&expected.0) {
            let Some(bound) = bounds.get(exact.what) else {
                continue;
            };
            // A backend need not report it.
            if exact.what == Quantity::Equivalent && found.values[0].is_nan() {
                continue;
            }
            let error = (&exact.values - &found.values).norm();
            let ratio = ratio_or_zero(error, (bound + exact.rounding) * dimension);
            // A NaN is worse than everything.
            if ratio.total_cmp(&worst.0).is_gt() {
                worst = (ratio, exact.name);
            }
        }
        worst
    }
}

impl Measured {
    /// Twice the rounding of the storage type: near the middle between two numbers two backends
    /// round apart.
    fn tensor(what: Quantity, name: &'static str, tensor: &HostTensor) -> Self {
        let (values, dtype) = (matrix(&tensor.view()), tensor.dtype());
        let smallest = smallest(dtype) * (values.len() as f64).sqrt();
        Measured {
            what,
            name,
            rounding: 2.0 * dtype.unit_roundoff() * values.norm() + smallest,
            values,
        }
    }

    fn number(what: Quantity, name: &'static str, x: f64, u: f64) -> Self {
        Measured {
            what,
            name,
            rounding: u * x.abs(),
            values: DMatrix::from_element(1, 1, x),
        }
    }
}

fn saved_tensor(saved: &TensorFile, name: &str) -> Result<HostTensor, Error> {
    let data = saved.tensors.get(name);
    let tensor = data.and_then(|data| match data.shape[..] {
        [rows, cols] => HostTensor::from_bytes(data.dtype, [rows, cols], data.bytes.clone()),
        _ => None,
    });
    tensor.ok_or_else(|| Error::file("the saved state", format!("no tensor `{name}`")))
}

/// The distance of the smallest numbers, where rounding is not relative any more.
fn smallest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MIN_POSITIVE * f64::EPSILON,
        DType::F32 => f64::from(f32::MIN_POSITIVE * f32::EPSILON),
        DType::Bf16 => f64::from(half::bf16::MIN_POSITIVE_SUBNORMAL),
        DType::F16 => f64::from(half::f16::MIN_POSITIVE_SUBNORMAL),
        DType::U8 => 1.0,
    }
}
