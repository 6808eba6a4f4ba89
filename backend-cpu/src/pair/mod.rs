//! One adapter in a step: survey, solve, commit.

mod bounds;
mod factored;
mod factors;
mod full;

use lora_pro_core::backend::{AdapterSlot, Factor, State, StateKind, ratio_or_zero};
use lora_pro_core::{AdapterIo, AdapterReport, DType, Hyper, Method, MomentDType};

use crate::decay;
use crate::memory::{Stateful, tensors, thin};
use crate::panel::Panel;
use crate::passes::{Crew, Source, survey};
use crate::rounding::{Round, Seed};
use crate::scratch::Lead;
use crate::small::{Side, Solved, combine, trace, trace_product};
use crate::view::View;

/// The borrowed tensors of one adapter. Side 0 is A, side 1 is B transposed.
#[derive(Clone, Copy)]
pub(crate) struct PairViews {
    /// A and B'.
    pub(crate) f: [View; 2],
    /// gA and gB'.
    pub(crate) g: [View; 2],
    /// W0.
    pub(crate) base: Option<View>,
}

impl PairViews {
    pub(crate) fn of(io: &mut AdapterIo<'_>) -> Self {
        PairViews {
            f: [
                View::of_mut(&mut io.a),
                View::of_mut(&mut io.b).transposed(),
            ],
            g: [View::of(&io.grad_a), View::of(&io.grad_b).transposed()],
            base: io.w0.as_mut().map(View::of_mut),
        }
    }
}

/// What is known of an adapter between the passes of a step.
#[derive(Default)]
pub(crate) struct PairWork {
    /// Set while the adapter is being stepped.
    pub(crate) views: Option<PairViews>,
    /// Whether its passes are cut up for several threads.
    pub(crate) split: bool,
    /// Whether it has been stepped already.
    pub(crate) done: bool,
    /// Whether its results might not be storable.
    pub(crate) doubtful: bool,
    /// Products of A, gA and of B', gB'.
    sides: [Side; 2],
    solved: Solved,
    /// ||E|| of the clipped gradients.
    equivalent_norm: f64,
}

/// The numbers of a step that concern all adapters.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) lr_factor: f64,
    pub(crate) grad_scale: f64,
    pub(crate) grad_clip: f64,
}

impl Setting {
    /// Everything that multiplies raw gradients.
    pub(crate) fn gamma(&self, hyper: &Hyper) -> f64 {
        let sign = if hyper.maximize { -1.0 } else { 1.0 };
        sign * self.grad_scale * self.grad_clip
    }
}

/// The numbers of one adapter's step, by side where they differ.
#[derive(Clone, Copy)]
struct Step {
    t: u64,
    gamma: f64,
    lr: [f64; 2],
    decay: [f64; 2],
    round: [Round; 2],
}

impl Step {
    fn new(slot: &AdapterSlot, setting: &Setting) -> Self {
        let hyper = &slot.hyper;
        let lr = hyper.lr * setting.lr_factor;
        let t = slot.state.step + 1;
        let seed = |side| Seed::new(&slot.spec.name, side, t);
        Step {
            t,
            gamma: setting.gamma(hyper),
            lr: [lr, lr * hyper.lr_ratio],
            decay: decay::of_factors(hyper, lr),
            round: [0, 1].map(|side| Round::of(hyper.rounding, seed(side))),
        }
    }
}

/// Whether an adapter is computed in f64: where anything that grows with it is stored in f64.
pub(crate) fn in_f64(slot: &AdapterSlot) -> bool {
    let moments = slot.hyper.method == Method::Full && slot.hyper.moment_dtype == MomentDType::F64;
    slot.spec.dtype == DType::F64 || moments
}

/// Names of the master copies, by side.
const MASTER: [StateKind; 2] = [StateKind::Master(Factor::A), StateKind::Master(Factor::B)];

/// The factors to be read: through their master copies, where there are any.
fn factors<'s, T>(views: &PairViews, state: &'s mut State) -> [Source<'s, T>; 2] {
    let [a, b] = tensors(state, MASTER).map(thin::<f32>);
    let of = |view, master: Option<&'s mut Panel<f32>>| match master {
        None => Source::View(view),
        Some(master) => Source::Master(view, master),
    };
    [of(views.f[0], a), of(views.f[1], b)]
}

impl PairWork {
    /// Gram and cross products of the factors and their raw gradients.
    pub(crate) fn survey<T: Stateful>(
        &mut self,
        crew: &Crew<'_, T>,
        lead: &mut Lead<T>,
        slot: &mut AdapterSlot,
    ) {
        let Some(views) = self.views else { return };
        let f = factors(&views, &mut slot.state);
        for (k, side) in self.sides.iter_mut().enumerate() {
            side.reserve(slot.spec.r);
            survey(crew, &mut lead.sums, f[k], Source::View(views.g[k]), side);
        }
    }

    /// True where every entry of the factors and gradients is finite, and their squares are.
    pub(crate) fn is_finite(&self) -> bool {
        let traces = self
            .sides
            .iter()
            .flat_map(|side| [trace(&side.ff), trace(&side.gg)]);
        traces.sum::<f64>().is_finite()
    }

    /// |gA|^2 and |gB|^2 as handed in.
    pub(crate) fn gradient_squares(&self) -> [f64; 2] {
        self.sides.each_ref().map(|side| trace(&side.gg))
    }

    /// |A| and |B|.
    fn factor_norms(&self) -> [f64; 2] {
        self.sides.each_ref().map(|side| trace(&side.ff).sqrt())
    }

    /// Inverts the Gram matrices, splits the gradient, and finds ||E|| and whether anything might
    /// overflow.
    pub(crate) fn solve<T: Stateful>(
        &mut self,
        lead: &mut Lead<T>,
        slot: &AdapterSlot,
        setting: &Setting,
    ) {
        let (spec, hyper) = (&slot.spec, &slot.hyper);
        let (s, gamma) = (spec.s(), setting.gamma(hyper));
        let (solved, work) = (&mut self.solved, &mut lead.work);
        solved.reserve(spec.r);
        let [a, b] = &self.sides;
        if hyper.method == Method::Lora {
            // E = s (B gA + gB A).
            for (k, side) in self.sides.iter().enumerate() {
                let factor = s * gamma;
                combine(solved.hh[k].as_mut(), [(factor * factor, side.gg.as_ref())]);
                combine(solved.fh[k].as_mut(), [(factor, side.fg.as_ref())]);
            }
        } else {
            let grams = [a.ff.as_ref(), b.ff.as_ref()];
            solved.decompose(work, grams, [spec.n, spec.m], hyper.damping);
            solved.split(work, s, gamma, &self.sides);
            solved.look(work, a.fg.transpose(), b.fg.as_ref());
            solved.choose(work, hyper.x, s, gamma);
        }
        // ||E||^2 with E = B H0 + H1' A.
        let square = trace_product(b.ff.as_ref(), solved.hh[0].as_ref())
            + trace_product(a.ff.as_ref(), solved.hh[1].as_ref())
            + 2.0 * trace_product(solved.fh[1].as_ref(), solved.fh[0].transpose());
        self.equivalent_norm = square.max(0.0).sqrt();
        self.doubtful = self.may_overflow(slot, setting);
    }

    /// Writes the step: parameters, state, counter, report. W0 is left for the end.
    pub(crate) fn commit<T: Stateful>(
        &mut self,
        crew: &Crew<'_, T>,
        lead: &mut Lead<T>,
        slot: &mut AdapterSlot,
        setting: &Setting,
    ) {
        let Some(views) = self.views.filter(|_| !self.done) else {
            return;
        };
        let step = Step::new(slot, setting);
        let factor_norms = self.factor_norms();
        let grad_norm = self
            .gradient_squares()
            .map(|square| square.sqrt() * setting.grad_scale);
        let Update { norms, clip } = match slot.hyper.method {
            Method::Factored => self.factored(crew, lead, slot, views, step),
            Method::Full => self.full(crew, lead, slot, views, step),
            Method::Lora | Method::Sgd | Method::Efficient => {
                self.on_factors(crew, lead, slot, views, step)
            }
        };
        slot.state.step = step.t;
        self.done = true;
        slot.report = {
            let mut report = AdapterReport::default();
            report.step = step.t;
            report.grad_norm = grad_norm.into();
            report.update_norm = norms.into();
            report.relative_update = [0, 1]
                .map(|k| ratio_or_zero(norms[k], factor_norms[k]))
                .into();
            report.equivalent_norm = self.equivalent_norm;
            report.clip = clip;
            report
        };
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        self.solved.poison();
        for side in &mut self.sides {
            let all = [&mut side.ff, &mut side.fg, &mut side.gg];
            all.into_iter().for_each(|matrix| matrix.fill(f64::NAN));
        }
        self.equivalent_norm = f64::NAN;
    }
}

/// What a step did to the factors.
struct Update {
    /// |lr dA| and |lr dB|.
    norms: [f64; 2],
    /// What the update clip multiplied them by.
    clip: f64,
}

/// The factor that keeps updates of these lengths in the trust region.
fn update_clip(hyper: &Hyper, factors: [f64; 2], update: [f64; 2]) -> f64 {
    let larger = if factors[0] >= factors[1] { 0 } else { 1 };
    let moved = ratio_or_zero(update[larger], factors[larger]);
    match hyper.update_clip {
        Some(limit) if moved > limit => limit / moved,
        _ => 1.0,
    }
}
