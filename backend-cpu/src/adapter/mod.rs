//! One adapter in a step: Gram pass, solve, commit.
//!
//! Passes over what grows with m or n, in their order, and what each computes of the algorithms
//! chapter. F is A on side 0 and B' on side 1, G its gradient, H = (sU, sV') its part of E.
//!
//! | method | pass | equations |
//! |---|---|---|
//! | all | [`gram_pass`] | SA = A A', SB = B'B, A gA', B'gB, and the norms of gA and gB |
//! | all | `solve` (r x r) | SA^+, SB^+, Q, X, norm of E, from the closed form |
//! | lora | [`update`](crate::passes::update()) | MF, VF, DF of gF; F <- decay F - lr DF |
//! | sgd | `update` | (dA, dB); momentum; F <- decay F - lr DF |
//! | efficient | `update` | (dA, dB); MF, VF, DF; F <- decay F - lr DF |
//! | full | [`form_equivalent`](crate::passes::form_equivalent) | the factors of E = [B sV] [sU; A] |
//! | | [`wide_pass`](crate::passes::wide_pass) | M, V2, N; B'N, N A' |
//! | | `gram_pass`, r x r | Q and X of N in the place of g |
//! | | `update` | (DA, DB) = closed_form(s B'N, s N A'); F <- decay F - lr DF |
//! | factored | [`update_moments`](crate::passes::update_moments) | Y, Z; row, col; the weights a, b of N; F w [F; Y]' |
//! | | r x r | Q and X of N in the place of g |
//! | | [`update_factor`](crate::passes::update_factor) | (DA, DB) = closed_form(s B'N, s N A'); F1 = decay F - lr DF |
//! | | [`transport`](crate::passes::transport) | Y = SB^+ B'M, Z = (I - PB) M A' SA^+ with the new A, B; F <- F1 |
//!
//! With an update clip, `update` and `update_factor` run once more: the first run finds the length.

mod at_risk;
mod factored;
mod factors;
mod full;

use lora_pro_core::backend::{AdapterSlot, Control, ratio_or_zero};
use lora_pro_core::{
    AdapterIo, AdapterReport, AdapterSpec, DType, Error, Hyper, Method, MomentDType, PerFactor,
};

use crate::decay;
use crate::parallel::ParallelCtx;
use crate::passes::{ThinInput, gram_pass};
use crate::rank_sized::{
    EquivalentProducts, GramInverses, GramProducts, InnerTerms, equivalent_norm, trace,
};
use crate::rounding::{Round, Seed};
use crate::typed_state::{AdapterState, Masters, MethodState, MomentElement, masters};
use crate::view::{ViewMut, ViewRef};
use crate::workspace::AdapterWorkspace;

/// An adapter's tensors to read; by side.
pub(crate) struct AdapterRefs<'a> {
    /// A and B'.
    f: [ViewRef<'a>; 2],
    /// gA and gB'.
    g: [ViewRef<'a>; 2],
}

impl<'a> AdapterRefs<'a> {
    /// # Errors
    /// As for [`ViewRef::of`].
    pub(crate) fn of(io: &'a AdapterIo<'_>) -> Result<Self, Error> {
        let [a, b] = [&io.a.view(), &io.b.view()].map(ViewRef::of);
        let [grad_a, grad_b] = [&io.grad_a, &io.grad_b].map(ViewRef::of);
        Ok(AdapterRefs {
            f: [a?, b?.transposed()],
            g: [grad_a?, grad_b?.transposed()],
        })
    }
}

/// An adapter's tensors to step; by side.
pub(crate) struct AdapterViews<'a> {
    /// A and B'.
    pub(crate) f: [ViewMut<'a>; 2],
    /// gA and gB'.
    g: [ViewRef<'a>; 2],
    pub(crate) w0: Option<ViewMut<'a>>,
}

impl<'a> AdapterViews<'a> {
    /// # Errors
    /// As for [`ViewRef::of`].
    pub(crate) fn of(io: &'a mut AdapterIo<'_>) -> Result<Self, Error> {
        let [grad_a, grad_b] = [&io.grad_a, &io.grad_b].map(ViewRef::of);
        Ok(AdapterViews {
            f: [ViewMut::of(&mut io.a)?, ViewMut::transpose_of(&mut io.b)?],
            g: [grad_a?, grad_b?.transposed()],
            w0: io.w0.as_mut().map(ViewMut::of).transpose()?,
        })
    }
}

/// What is known of an adapter between the rounds of a step.
#[derive(Default)]
pub(crate) struct AdapterWork {
    /// Whether it is stepped.
    pub(crate) listed: bool,
    /// Whether its passes are cut up for several threads.
    pub(crate) split: bool,
    /// Whether it has been stepped already.
    pub(crate) done: bool,
    /// Whether its results might not be storable.
    pub(crate) at_risk: bool,
    /// Products of A, gA and of B', gB'.
    sides: [GramProducts; 2],
    inverses: GramInverses,
    /// Q and X of the gradients.
    terms: InnerTerms,
    equivalent: [EquivalentProducts; 2],
    /// ||E|| of the clipped gradients.
    equivalent_norm: f64,
}

/// The factors of a step that concern all adapters.
#[derive(Clone, Copy)]
pub(crate) struct StepFactors {
    pub(crate) lr_factor: f64,
    pub(crate) grad_scale: f64,
    pub(crate) grad_clip: f64,
}

impl StepFactors {
    pub(crate) fn of(control: &Control, grad_clip: f64) -> Self {
        StepFactors {
            lr_factor: control.lr_factor,
            grad_scale: control.grad_scale,
            grad_clip,
        }
    }

    /// Everything that multiplies raw gradients.
    pub(crate) fn gamma(&self, hyper: &Hyper) -> f64 {
        let sign = if hyper.maximize { -1.0 } else { 1.0 };
        sign * self.grad_scale * self.grad_clip
    }
}

/// The numbers of one adapter's step, by side where they differ.
#[derive(Clone, Copy)]
struct StepParams {
    t: u64,
    s: f64,
    gamma: f64,
    lr: [f64; 2],
    decay: [f64; 2],
    round: [Round; 2],
}

impl StepParams {
    fn new(slot: &AdapterSlot, factors: &StepFactors) -> Self {
        let hyper = &slot.hyper;
        let lr = hyper.lr * factors.lr_factor;
        let t = slot.state.step + 1;
        let seed = |side| Seed::new(&slot.spec.name, side, t);
        StepParams {
            t,
            s: slot.spec.s(),
            gamma: factors.gamma(hyper),
            lr: [lr, lr * hyper.lr_ratio],
            decay: decay::of_factors(hyper, lr),
            round: [0, 1].map(|side| Round::of(hyper.rounding, seed(side))),
        }
    }
}

/// What the passes of any method read and write besides the method's own state.
struct AdapterStep<'s, 'v, T> {
    ctx: &'s ParallelCtx<'s, T>,
    workspace: &'s mut AdapterWorkspace<T>,
    spec: &'s AdapterSpec,
    hyper: &'s Hyper,
    params: StepParams,
    work: &'s AdapterWork,
    views: &'s mut AdapterViews<'v>,
    masters: Masters<'s>,
}

/// Whether an adapter is computed in f64: where anything that grows with it is stored in f64.
pub(crate) fn in_f64(slot: &AdapterSlot) -> bool {
    let moments = match slot.hyper.method {
        Method::Full => slot.hyper.moment_dtype == MomentDType::F64,
        Method::Lora | Method::Sgd | Method::Efficient | Method::Factored => false,
    };
    slot.spec.dtype == DType::F64 || moments
}

/// Why fetching the state of a step cannot fail: the backend does so once before anything is
/// written, and returns the error.
const CHECKED: &str = "the state was checked when the step began";

/// Checks that an adapter's state has what its method needs, as this backend stores it.
///
/// # Errors
/// As for [`AdapterState::of`].
pub(crate) fn check_state(slot: &mut AdapterSlot) -> Result<(), Error> {
    if in_f64(slot) {
        AdapterState::<f64>::of(&slot.spec, &slot.hyper, &mut slot.state).map(drop)
    } else {
        AdapterState::<f32>::of(&slot.spec, &slot.hyper, &mut slot.state).map(drop)
    }
}

impl AdapterWork {
    /// Gram and cross products of the factors and their raw gradients.
    pub(crate) fn gram_pass<T: MomentElement>(
        &mut self,
        ctx: &ParallelCtx<'_, T>,
        workspace: &mut AdapterWorkspace<T>,
        slot: &mut AdapterSlot,
        refs: &AdapterRefs<'_>,
    ) {
        let masters = masters(&slot.spec, &slot.hyper, &mut slot.state).expect(CHECKED);
        for (k, products) in self.sides.iter_mut().enumerate() {
            let f = ThinInput::factor(refs.f[k], masters[k].as_deref());
            let g = ThinInput::View(refs.g[k]);
            gram_pass(ctx, &mut workspace.sums, f, g, products);
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

    /// Inverts the Gram matrices, splits the gradient, and finds ||E|| and whether the step is at
    /// risk of an overflow.
    pub(crate) fn solve<T: MomentElement>(
        &mut self,
        workspace: &mut AdapterWorkspace<T>,
        slot: &AdapterSlot,
        factors: &StepFactors,
    ) {
        let (spec, hyper) = (&slot.spec, &slot.hyper);
        let (s, gamma) = (spec.s(), factors.gamma(hyper));
        match hyper.method {
            Method::Lora => {
                for (part, products) in self.equivalent.iter_mut().zip(&self.sides) {
                    part.of_raw(products, s * gamma);
                }
            }
            Method::Sgd | Method::Efficient | Method::Factored | Method::Full => {
                let (scratch, projection) = (&mut workspace.scratch, &mut workspace.projection);
                let [a, b] = &self.sides;
                let grams = [a.ff.as_ref(), b.ff.as_ref()];
                let inverses = &mut self.inverses;
                inverses.compute(scratch, grams, [spec.n, spec.m], hyper.damping);
                let (sides, equivalent) = (&self.sides, &mut self.equivalent);
                inverses.equivalent_products(scratch, gamma / s, sides, equivalent);
                let (ga_at, bt_gb) = (a.fg.transpose(), b.fg.as_ref());
                let projection = inverses.project_gradients(scratch, projection, ga_at, bt_gb);
                let factor = gamma / (s * s);
                inverses.solve_x(scratch, projection, hyper.x, factor, &mut self.terms);
            }
        }
        self.equivalent_norm = equivalent_norm(&self.sides, &self.equivalent);
        self.at_risk = self.overflow_is_possible(slot, factors);
    }

    /// Writes the step, once: parameters, state, counter, report. W0 is left for the end.
    pub(crate) fn commit<T: MomentElement>(
        &mut self,
        ctx: &ParallelCtx<'_, T>,
        workspace: &mut AdapterWorkspace<T>,
        slot: &mut AdapterSlot,
        views: &mut AdapterViews<'_>,
        factors: &StepFactors,
    ) {
        if self.done {
            return;
        }
        let params = StepParams::new(slot, factors);
        let state = AdapterState::of(&slot.spec, &slot.hyper, &mut slot.state);
        let AdapterState { method, masters } = state.expect(CHECKED);
        let step = AdapterStep {
            ctx,
            workspace,
            spec: &slot.spec,
            hyper: &slot.hyper,
            params,
            work: self,
            views,
            masters,
        };
        let update = match method {
            MethodState::Lora(moments) => step.lora(moments),
            MethodState::Sgd(momentum) => step.sgd(momentum),
            MethodState::Efficient(moments) => step.efficient(moments),
            MethodState::Factored(state) => step.factored(state),
            MethodState::Full(moments) => step.full(moments),
        };
        slot.state.step = params.t;
        slot.report = self.report(params.t, factors, update);
        self.done = true;
    }

    fn report(&self, t: u64, factors: &StepFactors, update: Update) -> AdapterReport {
        let by_factor = |[a, b]: [f64; 2]| PerFactor { a, b };
        let grad_norm = self.gradient_squares().map(f64::sqrt);
        let before = self.factor_norms();
        let relative = [0, 1].map(|k| ratio_or_zero(update.norms[k], before[k]));
        let mut report = AdapterReport::default();
        report.step = t;
        report.grad_norm = by_factor(grad_norm.map(|norm| norm * factors.grad_scale));
        report.update_norm = by_factor(update.norms);
        report.relative_update = by_factor(relative);
        report.equivalent_norm = self.equivalent_norm;
        report.clip = update.clip;
        report
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        self.sides.iter_mut().for_each(GramProducts::poison);
        self.inverses.poison();
        self.terms.poison();
        self.equivalent
            .iter_mut()
            .for_each(EquivalentProducts::poison);
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
