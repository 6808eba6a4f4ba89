//! A backend against the f64 reference, one step at a time from identical bits.
//!
//! LoRA-Pro's trajectories are chaotic: N divides by roots that may be small, and the second step
//! is larger than the factor it moves. Two correct backends part after a few steps. So before each
//! step the subject's state and factors are loaded into a reference of the same storage type, and
//! what both make of the same gradients is compared: A, B, W0, every state tensor, parameters
//! without a pair, and the report. The error of each is divided by what rounding explains
//! ([`crate::explained`]) and by sqrt(m + n + r), and held against
//! [`crate::residual::THRESHOLD`].
//!
//! Where rounding decides whether an eigenvalue is cut off, two correct backends may differ
//! altogether; such a step is not compared, and counted.

use std::cell::RefCell;
use std::path::Path;

use lora_pro_core::backend::{Factor, StateKind, ratio_or_zero};
use lora_pro_core::{
    Backend, Config, DType, Error, HostTensor, OnNonFinite, Optimizer, ParamId, ParamIo, ParamSpec,
    StepReport, TensorData, TensorFile,
};
use lora_pro_reference::ReferenceBackend;
use lora_pro_reference::clip::gradient_clip;
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::moments::{load_moments, load_state};
use lora_pro_reference::storage::{matrix, read_through_master};
use nalgebra::DMatrix;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::explained::{Known, Noise, noise, param_noise};
use crate::residual::holds;
use crate::sample::{CaseSpec, uniform};
use crate::subject::{Member, Subject};

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
    /// Step a parameter without a pair beside the adapter.
    pub unpaired: bool,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// The largest ratio of error and explained error.
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
/// What both refuse ends the case and is no error; what only one of them refuses is a finding of
/// infinite ratio. Errors are what goes wrong around the steps.
pub fn compare(make: &dyn Fn() -> Box<dyn Backend>, case: &Case) -> Result<Finding, Error> {
    let mut subject = Side::start(make(), case)?;
    let mut finding = Finding::default();
    for t in 1..=case.steps {
        let mut reference = subject.on(Box::new(ReferenceBackend::new()))?;
        if t == 2 {
            subject = subject.on(make())?;
        }
        let gradients = subject.gradients(case, t);
        if !subject.passes_over(case, &gradients)? {
            finding.note(f64::INFINITY, || {
                format!("a gradient that is not finite before step {t}")
            });
            break;
        }
        // Where a gradient has overflowed both refuse, and there is nothing to explain.
        let explained = explain(&reference, case, &gradients, t);
        let (found, expected) = match (subject.step(&gradients), reference.step(&gradients)) {
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
        let Some(explained) = explained? else {
            finding.ill_posed += 1;
            continue;
        };
        finding.compared += 1;
        let dimension = dimension(&case.adapter);
        for Compared {
            name,
            error,
            explained,
        } in values(&mut subject, &mut reference, &explained)?
            .into_iter()
            .chain(reports(
                &subject,
                &reference,
                [&found, &expected],
                &explained,
            ))
        {
            let ratio = ratio_or_zero(error, explained * dimension);
            finding.note(ratio, || format!("{name} in step {t}"));
        }
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

/// One result: how far it is off and how far rounding may put it.
struct Compared {
    name: String,
    error: f64,
    explained: f64,
}

/// What rounding explains in one step.
struct Explained {
    pair: Noise,
    param: Option<Noise>,
}

/// A backend with the tensors that it steps.
struct Side {
    optimizer: Optimizer,
    grad_scale: f64,
    member: Member,
    base: HostTensor,
    param: Option<HostTensor>,
}

/// What is handed in: the loss scale is in it.
#[derive(Clone)]
struct Gradients {
    a: HostTensor,
    b: HostTensor,
    param: HostTensor,
}

/// The parameter without a pair.
const PARAM: &str = "parameter";

impl Side {
    fn start(backend: Box<dyn Backend>, case: &Case) -> Result<Self, Error> {
        let spec = &case.adapter;
        let stored = as_stored(spec);
        let factors = spec.factors();
        let mut optimizer = Optimizer::new(backend, case.config.clone())?;
        optimizer.set_grad_scale(case.grad_scale)?;
        let id = optimizer.add_adapter(stored.spec(&factors))?;
        if case.unpaired {
            optimizer.add_param(ParamSpec::new(PARAM, 1, spec.m).dtype(spec.dtype))?;
        }
        Ok(Side {
            optimizer,
            grad_scale: case.grad_scale,
            member: Member {
                id,
                a: stored.host(&factors.a),
                b: stored.host(&factors.b),
                s: spec.s,
            },
            base: stored.host(&uniform(&mut spec.random(101), spec.m, spec.n)),
            param: case
                .unpaired
                .then(|| stored.host(&uniform(&mut spec.random(100), 1, spec.m))),
        })
    }

    /// The same numbers, to the last bit, on another backend.
    fn on(&mut self, backend: Box<dyn Backend>) -> Result<Side, Error> {
        let file = self.saved()?;
        let mut optimizer = Optimizer::load_from(backend, &file, Path::new("the subject's state"))?;
        optimizer.set_grad_scale(self.grad_scale)?;
        Ok(Side {
            optimizer,
            grad_scale: self.grad_scale,
            member: self.member.copy(),
            base: self.base.clone(),
            param: self.param.clone(),
        })
    }

    fn saved(&mut self) -> Result<TensorFile, Error> {
        let mut file = TensorFile::new();
        self.optimizer.save_to(&mut file)?;
        Ok(file)
    }

    fn gradients(&self, case: &Case, t: u64) -> Gradients {
        let spec = &case.adapter;
        let stored = as_stored(spec);
        let pair = spec.gradients(&self.member.factors(), t);
        let param = uniform(&mut spec.random(1000 + t), 1, spec.m) * spec.size_g;
        let scaled = |values: &DMatrix<f64>| stored.host(&(values / case.grad_scale));
        Gradients {
            a: scaled(&pair.a),
            b: scaled(&pair.b),
            param: scaled(&param),
        }
    }

    fn step(&mut self, gradients: &Gradients) -> Result<StepReport, Error> {
        let mut io = self.member.io(&gradients.a, &gradients.b);
        io.w0 = Some(self.base.view_mut());
        let mut params: Vec<ParamIo<'_>> = self
            .param
            .iter_mut()
            .map(|value| {
                ParamIo::new(
                    ParamId::from_index(0),
                    value.view_mut(),
                    gradients.param.view(),
                )
            })
            .collect();
        self.optimizer.step_with_params(&mut [io], &mut params)
    }

    /// Whether a step with a gradient that is not finite is refused or skipped, as the case has it,
    /// and changes nothing.
    fn passes_over(&mut self, case: &Case, gradients: &Gradients) -> Result<bool, Error> {
        let mut broken = gradients.clone();
        let last = match case.unpaired {
            true => &mut broken.param,
            false => &mut broken.b,
        };
        let [rows, cols] = last.shape();
        last.view_mut().set(rows - 1, cols - 1, f64::NAN);
        let before = self.tensors()?;
        let t = self.optimizer.adapters()[0].state.step;
        let outcome = self.step(&broken);
        let said = match case.config.on_non_finite {
            OnNonFinite::Error => outcome.is_err(),
            OnNonFinite::Skip => outcome?.skipped.is_some(),
        };
        let counted = self.optimizer.adapters()[0].state.step - t;
        Ok(said && counted == 0 && self.tensors()? == before)
    }

    /// Everything that a step writes.
    fn tensors(&mut self) -> Result<Vec<(String, HostTensor)>, Error> {
        let saved = self.saved()?;
        let own = [("A", Some(&self.member.a)), ("B", Some(&self.member.b))];
        let others = [("W0", Some(&self.base)), (PARAM, self.param.as_ref())];
        let own = own.into_iter().chain(others);
        let mut all: Vec<_> = own
            .filter_map(|(name, tensor)| Some((name.to_string(), tensor?.clone())))
            .collect();
        for (
            name,
            TensorData {
                dtype,
                shape,
                bytes,
            },
        ) in saved.tensors
        {
            let tensor = HostTensor::from_bytes(dtype, [shape[0], shape[1]], bytes);
            let tensor = tensor.ok_or_else(|| Error::file("the saved state", "a short tensor"))?;
            all.push((name, tensor));
        }
        Ok(all)
    }
}

/// The case's storage type as the subject's helpers want it.
fn as_stored(spec: &CaseSpec) -> Subject {
    Subject::new("either", spec.dtype, || Box::new(ReferenceBackend::new()))
}

/// What rounding explains of the step that comes; None where the step is ill-posed.
fn explain(
    reference: &Side,
    case: &Case,
    gradients: &Gradients,
    t: u64,
) -> Result<Option<Explained>, Error> {
    let scaled = |tensor: &HostTensor| matrix(&tensor.view()) * case.grad_scale;
    let (a, b) = (scaled(&gradients.a), scaled(&gradients.b));
    let param = scaled(&gradients.param);
    let squares = a.norm_squared() + b.norm_squared();
    let unpaired = if case.unpaired {
        param.norm_squared()
    } else {
        0.0
    };
    let clip = gradient_clip(case.config.max_grad_norm, (squares + unpaired).sqrt());

    let slot = &reference.optimizer.adapters()[0];
    let dtype = case.adapter.dtype;
    let read = |tensor: &HostTensor, master| {
        read_through_master(matrix(&tensor.view()), &slot.state, master, dtype)
    };
    let factors = Factors {
        b: read(&reference.member.b, StateKind::Master(Factor::B))?,
        a: read(&reference.member.a, StateKind::Master(Factor::A))?,
        s: case.adapter.s,
    };
    let hyper = case
        .config
        .hyper
        .lr(case.config.hyper.lr * case.config.schedule.factor(t));
    let known = Known {
        hyper: &hyper,
        storage: dtype,
        t,
        factors: &factors,
        gradients: &FactorPair { a, b }.scaled(clip),
        memory: &load_state(&slot.hyper, &slot.state)?,
    };
    let Some(pair) = noise(&known)? else {
        return Ok(None);
    };
    let param = match (&reference.param, reference.optimizer.params().first()) {
        (Some(value), Some(slot)) => {
            let old = load_moments(&slot.state, StateKind::Param, slot.hyper.amsgrad)?;
            let value = matrix(&value.view());
            Some(param_noise(&known, &old, &value, &(param * clip)))
        }
        _ => None,
    };
    Ok(Some(Explained { pair, param }))
}

/// Every tensor of both sides. What rounding explains is the noise of its computation, and twice
/// the rounding of its storage type: near the middle between two numbers the sides round apart.
fn values(
    subject: &mut Side,
    reference: &mut Side,
    explained: &Explained,
) -> Result<Vec<Compared>, Error> {
    let mut all = Vec::new();
    for ((name, found), (expected_name, expected)) in
        subject.tensors()?.into_iter().zip(reference.tensors()?)
    {
        assert_eq!(name, expected_name, "the saved tensors are core's");
        let Some(noise) = explained.of(&name) else {
            continue;
        };
        let (x, y) = (matrix(&found.view()), matrix(&expected.view()));
        let stored = 2.0 * expected.dtype().unit_roundoff() * y.norm();
        let smallest = smallest(expected.dtype()) * (y.len() as f64).sqrt();
        all.push(Compared {
            error: (x - y).norm(),
            explained: noise + stored + smallest,
            name,
        });
    }
    Ok(all)
}

impl Explained {
    /// The noise of a tensor by its name; None where no digit is due.
    fn of(&self, name: &str) -> Option<f64> {
        let none = || self.param.as_ref().map_or(0.0, |noise| noise.factors[0]);
        let state = |noise: &Noise, name: &str| {
            let found = noise.state.iter().find(|(tensor, _)| *tensor == name);
            found.and_then(|(_, noise)| *noise)
        };
        if let Some(tensor) = name.strip_prefix("state.adapter.") {
            return match tensor {
                "master_a" => Some(self.pair.factors[0]),
                "master_b" => Some(self.pair.factors[1]),
                _ => state(&self.pair, tensor),
            };
        }
        match (name.strip_prefix("state.parameter."), name) {
            (Some("master"), _) | (None, PARAM) => Some(none()),
            (Some(tensor), _) => state(self.param.as_ref()?, tensor),
            (None, "A") => Some(self.pair.factors[0]),
            (None, "B") => Some(self.pair.factors[1]),
            (None, _) => Some(0.0),
        }
    }
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

/// The reports of both sides. Norms are sums of squares in f64 of what was computed.
fn reports(
    subject: &Side,
    reference: &Side,
    [found, expected]: [&StepReport; 2],
    explained: &Explained,
) -> Vec<Compared> {
    let [x, y] = [subject, reference].map(|side| side.optimizer.adapters()[0].report);
    let noise = &explained.pair;
    let u = DType::F32.unit_roundoff();
    let compare = |name: &str, found: f64, expected: f64, explained: f64| Compared {
        name: format!("the report's {name}"),
        // Both infinite, where a factor that was zero has moved.
        error: if found == expected {
            0.0
        } else {
            (found - expected).abs()
        },
        explained,
    };
    let mut all = vec![
        compare("step", x.step as f64, y.step as f64, 0.0),
        compare("clip", x.clip, y.clip, noise.clip),
        compare("equivalent_norm", x.equivalent_norm, y.equivalent_norm, {
            noise.equivalent + u * y.equivalent_norm
        }),
        compare(
            "grad_norm",
            found.grad_norm,
            expected.grad_norm,
            u * expected.grad_norm,
        ),
        compare(
            "grad_clip",
            found.grad_clip,
            expected.grad_clip,
            u * expected.grad_clip,
        ),
        compare("lr_factor", found.lr_factor, expected.lr_factor, 0.0),
    ];
    for k in 0..2 {
        let size = ratio_or_zero(
            y.update_norm.of(Factor::ALL[k]),
            y.relative_update.of(Factor::ALL[k]),
        );
        all.extend([
            compare(
                "grad_norm",
                x.grad_norm.of(Factor::ALL[k]),
                y.grad_norm.of(Factor::ALL[k]),
                u * y.grad_norm.of(Factor::ALL[k]),
            ),
            compare(
                "update_norm",
                x.update_norm.of(Factor::ALL[k]),
                y.update_norm.of(Factor::ALL[k]),
                noise.update[k],
            ),
        ]);
        // What is measured against a factor that is zero has no scale.
        if size > 0.0 {
            all.push(compare(
                "relative_update",
                x.relative_update.of(Factor::ALL[k]),
                y.relative_update.of(Factor::ALL[k]),
                noise.update[k] / size,
            ));
        }
    }
    all
}
