//! One optimizer step of one adapter, from the functions of the other modules.

use lora_pro_core::backend::ratio_or_zero;
use lora_pro_core::{AdapterReport, Error, Hyper, Method};

use crate::adamw::Moments;
use crate::clip::update_clip;
use crate::closed_form::{Split, adjusted, split};
use crate::damping::Grams;
use crate::decay::decay;
use crate::efficient::{FactorMoments, adam_on_factors};
use crate::equivalent::{equivalent_gradient, of_split};
use crate::factored::{self, Factored};
use crate::factors::{Factors, Pair, factor_gradients};
use crate::full::{self, Square};
use crate::sgd::with_momentum;
use crate::x;

/// What an adapter's optimizer remembers, by method.
#[derive(Clone, Debug, PartialEq)]
pub enum Memory {
    /// SGD without momentum.
    Nothing,
    /// SGD with momentum.
    Momentum(Pair),
    /// Plain LoRA and the efficient mode.
    Factors(FactorMoments),
    /// The factored mode.
    Factored(Factored),
    /// The full mode.
    Full(Moments),
}

/// What a step starts from, besides the adapter itself.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The hyper-parameters.
    pub hyper: &'a Hyper,
    /// The learning rate of this step, schedule included.
    pub lr: f64,
    /// The step counter t = 1, 2, ... of this step.
    pub t: u64,
    /// How the full mode squares E.
    pub square: Square,
}

/// What a step leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped {
    /// The new factors.
    pub factors: Factors,
    /// The new memory.
    pub memory: Memory,
    /// What W0 is to be multiplied by.
    pub base_decay: f64,
    /// Norms of what happened.
    pub report: AdapterReport,
}

/// One step: direction, update clip, decay, update; in factored mode the transport of the moment.
///
/// `gradients` are (gA, gB), scaled and clipped.
///
/// # Errors
/// As [`crate::eigen::symmetric_eigen`]; [`Error::Invalid`] where `memory` is another method's.
///
/// ```
/// use lora_pro_core::{Damping, Hyper, Method, Preset};
/// use lora_pro_reference::factors::{Factors, factor_gradients};
/// use lora_pro_reference::{full::Square, step::{Memory, Setting, step}};
/// use nalgebra::dmatrix;
/// let hyper = Preset::Paper.hyper().method(Method::Sgd).damping(Damping::None);
/// let setting = Setting { hyper: &hyper, lr: 0.5, t: 1, square: Square::Exact };
/// let factors = Factors { b: dmatrix![0.0; 0.0], a: dmatrix![2.0, 0.0], s: 1.0 };
/// let gradients = factor_gradients(&factors, &dmatrix![4.0, 7.0; 8.0, 9.0]);
/// let stepped = step(setting, &factors, &gradients, &Memory::Nothing)?;
/// // B = 0: A stays, and B A moves by -lr times the part of g in A's rows.
/// assert_eq!(stepped.factors.a, factors.a);
/// assert_eq!(&stepped.factors.b * &factors.a, dmatrix![-2.0, 0.0; -4.0, 0.0]);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn step(
    setting: Setting<'_>,
    factors: &Factors,
    gradients: &Pair,
    memory: &Memory,
) -> Result<Stepped, Error> {
    let Setting { hyper, lr, t, .. } = setting;
    let sign = if hyper.maximize { -1.0 } else { 1.0 };
    let (direction, memory, equivalent_norm) =
        direction(setting, factors, &gradients.scaled(sign), memory)?;

    let update = Pair {
        a: &direction.a * lr,
        b: &direction.b * (lr * hyper.lr_ratio),
    };
    let clip = update_clip(hyper.update_clip, factors, &update);
    let update = update.scaled(clip);

    let decay = decay(hyper, lr);
    let new_factors = Factors {
        a: &factors.a * decay.a - &update.a,
        b: &factors.b * decay.b - &update.b,
        s: factors.s,
    };
    let memory = match memory {
        Memory::Factored(state) => Memory::Factored(factored::transported(
            factors,
            &state,
            &new_factors,
            hyper.damping,
        )?),
        other => other,
    };
    let mut report = AdapterReport::default();
    report.step = t;
    report.grad_norm = [gradients.a.norm(), gradients.b.norm()].into();
    report.update_norm = [update.a.norm(), update.b.norm()].into();
    report.relative_update = [
        ratio_or_zero(update.a.norm(), factors.a.norm()),
        ratio_or_zero(update.b.norm(), factors.b.norm()),
    ]
    .into();
    report.equivalent_norm = equivalent_norm;
    report.clip = clip;
    Ok(Stepped {
        factors: new_factors,
        memory,
        base_decay: decay.base,
        report,
    })
}

/// The direction (before the learning rate), the new memory, and ||E|| of the gradients.
fn direction(
    setting: Setting<'_>,
    factors: &Factors,
    gradients: &Pair,
    memory: &Memory,
) -> Result<(Pair, Memory, f64), Error> {
    let Setting {
        hyper, t, square, ..
    } = setting;
    if hyper.method == Method::Lora {
        let Memory::Factors(old) = memory else {
            return Err(wrong_memory());
        };
        let (new, direction) = adam_on_factors(hyper, old, gradients, t);
        let norm = equivalent_gradient(factors, gradients).norm();
        return Ok((direction, Memory::Factors(new), norm));
    }
    let grams = Grams::of(factors, hyper.damping)?;
    let split = split(factors, &grams, gradients);
    let e = of_split(factors, &split);
    let (direction, memory) = match (hyper.method, memory) {
        (Method::Sgd, Memory::Nothing) => (
            closed_form(hyper, factors, &grams, gradients, &split)?,
            Memory::Nothing,
        ),
        (Method::Sgd, Memory::Momentum(old)) => {
            let new = closed_form(hyper, factors, &grams, gradients, &split)?;
            let direction = with_momentum(hyper.momentum, old, &new);
            (direction.clone(), Memory::Momentum(direction))
        }
        (Method::Efficient, Memory::Factors(old)) => {
            let pair = closed_form(hyper, factors, &grams, gradients, &split)?;
            let (new, direction) = adam_on_factors(hyper, old, &pair, t);
            (direction, Memory::Factors(new))
        }
        (Method::Full, Memory::Full(old)) => {
            let (new, n) = full::normalized(hyper, old, &e, t, square);
            (toward(hyper, factors, &grams, &n)?, Memory::Full(new))
        }
        (Method::Factored, Memory::Factored(old)) => {
            let new = factored::averaged(hyper, factors, old, &split);
            let n = factored::normalized(hyper, factors, &new, t);
            (toward(hyper, factors, &grams, &n)?, Memory::Factored(new))
        }
        _ => return Err(wrong_memory()),
    };
    Ok((direction, memory, e.norm()))
}

/// (dA, dB) of the gradients whose U and V are given, with the chosen X.
fn closed_form(
    hyper: &Hyper,
    factors: &Factors,
    grams: &Grams,
    gradients: &Pair,
    parts: &Split,
) -> Result<Pair, Error> {
    let x = x::choose(hyper.x, factors, grams, gradients, parts)?;
    Ok(adjusted(factors, parts, &x))
}

/// (dA, dB) whose E is nearest to the m x n matrix N: N takes the place of g.
fn toward(
    hyper: &Hyper,
    factors: &Factors,
    grams: &Grams,
    n: &nalgebra::DMatrix<f64>,
) -> Result<Pair, Error> {
    let gradients = factor_gradients(factors, n);
    let parts = split(factors, grams, &gradients);
    closed_form(hyper, factors, grams, &gradients, &parts)
}

fn wrong_memory() -> Error {
    Error::invalid(
        "the optimizer",
        "state",
        "another method's",
        "that of the method",
    )
}
