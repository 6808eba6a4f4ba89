//! ErrorBound of everything that one step leaves behind.

use lora_pro_core::backend::ratio_or_zero;
use lora_pro_core::{DType, Error, Factor, Hyper, Method, Moment, MomentDType, StateKind};
use lora_pro_reference::factors::{FactorPair, Factors, factor_gradients};
use lora_pro_reference::quirk::SecondMomentQuirk;
use lora_pro_reference::sgd::with_momentum;
use lora_pro_reference::state::{FactorMoments, FactoredMoments, Moments, OptimizerState};
use lora_pro_reference::step::step;
use lora_pro_reference::update::{StepParams, Update};
use nalgebra::DMatrix;

use super::closed_form::{ConditionedAdapter, PerColumn, Solved};
use super::norms::{across, columns, down, outer, rows};
use super::{adam, factored};

/// What a step starts from.
pub struct StepInput<'k> {
    /// The hyper-parameters.
    pub hyper: &'k Hyper,
    /// Storage type of A and B.
    pub storage: DType,
    /// The step counter t of this step.
    pub t: u64,
    /// The factors, or their master copies.
    pub factors: &'k Factors,
    /// (gA, gB), scaled and clipped.
    pub gradients: &'k FactorPair,
    /// The moments.
    pub memory: &'k OptimizerState,
}

/// How far each result may be off, as a Frobenius norm, before it is stored.
pub struct ErrorBound {
    /// A and B.
    pub factors: [f64; 2],
    /// State tensors by name. None: no digit is due.
    pub state: Vec<(StateKind, Option<f64>)>,
    /// |lr dA| and |lr dB|.
    pub update: [f64; 2],
    /// The update clip.
    pub clip: f64,
    /// ||E||.
    pub equivalent: f64,
}

/// A direction with its noise, the noise of the moments and of ||E||.
struct Direction {
    pair: FactorPair,
    noise: [f64; 2],
    state: Vec<(StateKind, Option<f64>)>,
    equivalent: f64,
    /// What has to be carried to the new tangent space.
    carry: Option<factored::Averaged>,
}

impl StepInput<'_> {
    /// The unit round-off of thin matrices: f64 where anything is stored in it, else f32.
    pub fn unit_roundoff(&self) -> f64 {
        let wide = self.storage == DType::F64 || self.hyper.moment_dtype == MomentDType::F64;
        if wide { DType::F64 } else { DType::F32 }.unit_roundoff()
    }
}

/// The noise of one step. None where the case is ill-posed and rounding decides: whether an
/// eigenvalue is cut off, so that two correct backends may use different tangent spaces; or which
/// factor is the larger one, to which the update clip looks.
///
/// # Errors
/// What the reference refuses.
pub fn error_bound(known: &StepInput<'_>) -> Result<Option<ErrorBound>, Error> {
    let StepInput { hyper, factors, .. } = *known;
    let u = known.unit_roundoff();
    let place = ConditionedAdapter::of(factors, hyper.damping, u)?;
    if hyper.method != Method::Lora && place.at_the_cut(hyper.damping, [0.0; 2])? {
        return Ok(None);
    }
    if hyper.update_clip.is_some() && alike(factors.a.norm(), factors.b.norm(), u) {
        return Ok(None);
    }
    let params = StepParams {
        hyper,
        lr: hyper.lr,
        t: known.t,
        quirk: SecondMomentQuirk::None,
    };
    let stepped = step(&params, factors, known.gradients, known.memory)?.update;
    let direction = direction(known, &place)?;
    let update = update_noise(hyper, factors, &stepped, &direction, u);
    let moved = |old: &DMatrix<f64>, k: usize| {
        update.0[k] + (old.norm() + lengths(&stepped.change)[k]) * u * 2.0
    };
    let new = [moved(&factors.a, 0), moved(&factors.b, 1)];
    let mut state = direction.state;
    if let Some(average) = &direction.carry {
        let carried = factored::carried(&place, hyper, average, &stepped.factors, new)?;
        state.push((
            StateKind::TangentY,
            carried.as_ref().map(|noise| noise.a.norm()),
        ));
        state.push((
            StateKind::TangentZ,
            carried.as_ref().map(|noise| noise.b.norm()),
        ));
    }
    Ok(Some(ErrorBound {
        factors: new,
        state,
        update: update.0,
        clip: update.1,
        equivalent: direction.equivalent,
    }))
}

/// The norms of both matrices.
fn lengths(pair: &FactorPair) -> [f64; 2] {
    [pair.a.norm(), pair.b.norm()]
}

/// Equal up to rounding.
fn alike(x: f64, y: f64, u: f64) -> bool {
    (x - y).abs() <= 100.0 * u * x.max(y)
}

/// Of both updates and of the clip, which is inverse to the length of one of them.
fn update_noise(
    hyper: &Hyper,
    factors: &Factors,
    stepped: &Update,
    direction: &Direction,
    u: f64,
) -> ([f64; 2], f64) {
    let changes = lengths(&stepped.change);
    let larger = if factors.a.norm() >= factors.b.norm() {
        0
    } else {
        1
    };
    let length = [direction.pair.a.norm(), direction.pair.b.norm()];
    let share = match hyper.update_clip {
        Some(_) => ratio_or_zero(direction.noise[larger], length[larger]).min(1.0),
        None => 0.0,
    };
    let rates = [hyper.lr, hyper.lr * hyper.lr_ratio];
    let noise = [0, 1]
        .map(|k| rates[k] * stepped.clip * direction.noise[k] + changes[k] * (share + 4.0 * u));
    (noise, stepped.clip * (share + 4.0 * u))
}

fn direction(known: &StepInput<'_>, place: &ConditionedAdapter<'_>) -> Result<Direction, Error> {
    let StepInput { hyper, t, .. } = *known;
    let u = place.u;
    let sign = if hyper.maximize { -1.0 } else { 1.0 };
    let gradients = known.gradients.scaled(sign);
    if hyper.method == Method::Lora {
        let e = FactorPair {
            a: gradients.a.abs() * u,
            b: gradients.b.abs() * u,
        };
        let equivalent = of_lora(place, &gradients);
        return Ok(on_factors(known, &gradients, &e, equivalent, u));
    }
    let solved = place.solve(hyper, &gradients, &place.rounding_of(&gradients), None)?;
    let (e, e_noise) = place.equivalent(&solved);
    let equivalent = e_noise.norm() + of_length(place, &solved, e.norm());
    match known.memory {
        OptimizerState::Momentum(None) => Ok(Direction {
            pair: solved.adjusted,
            noise: [solved.noise.a.norm(), solved.noise.b.norm()],
            state: vec![],
            equivalent,
            carry: None,
        }),
        OptimizerState::Momentum(Some(old)) => {
            let pair = with_momentum(hyper.momentum, old, &solved.adjusted);
            let noise = [
                solved.noise.a.norm() + u * (pair.a.norm() + old.a.norm()),
                solved.noise.b.norm() + u * (pair.b.norm() + old.b.norm()),
            ];
            let state = vec![
                (StateKind::Momentum(Factor::A), Some(noise[0])),
                (StateKind::Momentum(Factor::B), Some(noise[1])),
            ];
            Ok(Direction {
                pair,
                noise,
                state,
                equivalent,
                carry: None,
            })
        }
        OptimizerState::Factors(_) => {
            let e = FactorPair {
                a: down(place.factors.a.nrows(), &solved.noise.a),
                b: across(place.factors.b.ncols(), &solved.noise.b),
            };
            Ok(on_factors(known, &solved.adjusted, &e, equivalent, u))
        }
        OptimizerState::Full(old) => {
            let new = adam::averaged(hyper, old, &e, &e_noise, t, u);
            let norms = (columns(&new.n), rows(&new.n));
            let scale = u * place.factors.s;
            let direct = PerColumn {
                a: norms.0 * (place.b * scale),
                b: norms.1 * (place.a * scale),
            };
            let toward = toward(hyper, place, &new.n, &direct, &new.n_noise)?;
            Ok(Direction {
                noise: [toward.noise.a.norm(), toward.noise.b.norm()],
                pair: toward.adjusted,
                state: moments(StateKind::Weight, old, &new),
                equivalent,
                carry: None,
            })
        }
        OptimizerState::Factored(old) => {
            let new = factored::averaged(place, hyper, old, &solved, t);
            let toward = toward(hyper, place, &new.n, &new.direct, &new.n_noise)?;
            Ok(Direction {
                noise: [toward.noise.a.norm(), toward.noise.b.norm()],
                pair: toward.adjusted,
                state: means(old, &new),
                equivalent,
                carry: Some(new),
            })
        }
    }
}

fn toward(
    hyper: &Hyper,
    place: &ConditionedAdapter<'_>,
    n: &DMatrix<f64>,
    direct: &PerColumn,
    n_noise: &DMatrix<f64>,
) -> Result<Solved, Error> {
    let gradients = factor_gradients(place.factors, n);
    place.solve(hyper, &gradients, direct, Some(n_noise))
}

/// Adam on each factor by itself.
fn on_factors(
    known: &StepInput<'_>,
    pair: &FactorPair,
    noise: &FactorPair,
    equivalent: f64,
    u: f64,
) -> Direction {
    let OptimizerState::Factors(FactorMoments { a, b }) = known.memory else {
        unreachable!("only methods that keep moments of the factors get here");
    };
    let hyper = known.hyper;
    let new_a = adam::averaged(hyper, a, &pair.a, &noise.a, known.t, u);
    let new_b = adam::averaged(hyper, b, &pair.b, &noise.b, known.t, u);
    let mut state = moments(|moment| StateKind::Factor(moment, Factor::A), a, &new_a);
    state.extend(moments(
        |moment| StateKind::Factor(moment, Factor::B),
        b,
        &new_b,
    ));
    Direction {
        noise: [new_a.n_noise.norm(), new_b.n_noise.norm()],
        pair: FactorPair {
            a: new_a.n,
            b: new_b.n,
        },
        state,
        equivalent,
        carry: None,
    }
}

fn moments(
    kind: impl Fn(Moment) -> StateKind,
    old: &Moments,
    new: &adam::Averaged,
) -> Vec<(StateKind, Option<f64>)> {
    let (first, second) = (Some(new.first_noise.norm()), Some(new.second_noise.norm()));
    let mut all = vec![(kind(Moment::First), first), (kind(Moment::Second), second)];
    if old.largest.is_some() {
        all.push((kind(Moment::MaxSecond), second));
    }
    all
}

fn means(old: &FactoredMoments, new: &factored::Averaged) -> Vec<(StateKind, Option<f64>)> {
    let (row, col) = (Some(new.means.b.norm()), Some(new.means.a.norm()));
    let mut all = vec![(StateKind::RowMeans, row), (StateKind::ColMeans, col)];
    if old.largest.is_some() {
        all.extend([(StateKind::MaxRowMeans, row), (StateKind::MaxColMeans, col)]);
    }
    all
}

/// Plain LoRA's E = s (B gA + gB A), from its factors as they are.
fn of_lora(place: &ConditionedAdapter<'_>, gradients: &FactorPair) -> f64 {
    let rounding = place.rounding_of(gradients);
    let noise = outer(&place.b_rows, &rounding.a, &rounding.b, &place.a_columns);
    let s = place.factors.s;
    let parts = s * (place.b * gradients.a.norm() + gradients.b.norm() * place.a);
    noise.norm() * s + of_square_root(parts, 0.0)
}

/// ||E|| as the root of a sum of r x r products, whose terms may cancel.
fn of_length(place: &ConditionedAdapter<'_>, solved: &Solved, length: f64) -> f64 {
    let split = &solved.split;
    let parts = place.factors.s * (place.b * split.u.norm() + split.v.norm() * place.a);
    of_square_root(parts, length)
}

/// The root of x^2, where x^2 has the rounding w parts^2.
fn of_square_root(parts: f64, x: f64) -> f64 {
    let square = DType::F64.unit_roundoff() * parts * parts;
    if x > 0.0 {
        (square / x).min(square.sqrt())
    } else {
        square.sqrt()
    }
}

/// ErrorBound of an unpaired parameter after a step of AdamW, and of its moments.
pub fn param_error_bound(
    known: &StepInput<'_>,
    old: &Moments,
    value: &DMatrix<f64>,
    gradient: &DMatrix<f64>,
) -> ErrorBound {
    let (hyper, u) = (known.hyper, known.unit_roundoff());
    let new = adam::averaged(hyper, old, gradient, &(gradient.abs() * u), known.t, u);
    let update = hyper.lr * (new.n_noise.norm() + 4.0 * u * new.n.norm());
    ErrorBound {
        factors: [update + 2.0 * u * value.norm(), 0.0],
        state: moments(StateKind::Param, old, &new),
        update: [update, 0.0],
        clip: 0.0,
        equivalent: 0.0,
    }
}
