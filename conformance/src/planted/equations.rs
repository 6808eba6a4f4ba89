//! Every equation of a step, in a table. A bug replaces one of them.

use lora_pro_core::backend::{AdapterSlot, Control, Slots, StateKind, StateTensor, StepIo};
use lora_pro_core::{AdapterReport, DType, Damping, Error, Hyper, XChoice};
use lora_pro_reference::adamw::{self, bias_correction, ema};
use lora_pro_reference::closed_form::{self, Split};
use lora_pro_reference::damping::{Grams, InverseRoot};
use lora_pro_reference::decay::{self, Decay};
use lora_pro_reference::factored;
use lora_pro_reference::factors::{self, FactorPair, Factors};
use lora_pro_reference::moments::load_state;
use lora_pro_reference::state::{FactoredMoments, Means, Moments, OptimizerState};
use lora_pro_reference::storage::check_representable;
use lora_pro_reference::{clip, sgd, x};
use nalgebra::DMatrix;

/// A matrix of any shape.
pub type Matrix = DMatrix<f64>;

/// State tensors by kind.
pub type Tensors = Vec<(StateKind, Matrix)>;

/// What a step computes, equation by equation; [`Equations::EXACT`] is the reference.
#[derive(Clone, Copy)]
pub struct Equations {
    /// What of the caller's settings for the whole step is used.
    pub control: fn(&Control) -> Control,
    /// What is written before the inputs are checked: nothing.
    pub before_checks: fn(&mut StepIo<'_, '_>),
    /// The check that values are finite: of gradients, factors and whatever is to be written.
    pub finite: fn(&Matrix, DType, &str, &'static str) -> Result<(), Error>,
    /// What a skipped step changes: nothing.
    pub skipped: fn(&mut Slots<'_>),
    /// (gA, gB) from what is handed in and the factor that takes out the loss scale.
    pub raw: fn(&FactorPair, f64) -> FactorPair,
    /// The global norm, from the squared norms of the adapters' gradients and of the others.
    pub global_norm: fn(&[f64], &[f64]) -> f64,
    /// The factor of the global clip on the gradients and on the direction.
    pub gradient_clip: fn(f64) -> [f64; 2],

    /// The gradients of the k-th adapter of a batch.
    pub gradients_of: fn(&[FactorPair], usize) -> FactorPair,
    /// The hyper-parameters of an adapter.
    pub hyper: fn(&[AdapterSlot], usize) -> Hyper,
    /// The scale s of an adapter.
    pub scale: fn(&[AdapterSlot], usize) -> f64,
    /// The moments of an adapter.
    pub memory: fn(&[AdapterSlot], usize) -> Result<OptimizerState, Error>,
    /// The step counter t = 1, 2, ... of an adapter.
    pub counter: fn(&[AdapterSlot], usize) -> u64,
    /// Steps taken after a step, from those before it.
    pub counted: fn(u64) -> u64,

    /// The factor on gA and gB for `maximize`.
    pub signs: fn(bool) -> [f64; 2],
    /// SA, SB and their damped inverses.
    pub grams: fn(&Factors, Damping) -> Result<Grams, Error>,
    /// U.
    pub u: fn(f64, &InverseRoot, &Matrix) -> Matrix,
    /// V.
    pub v: fn(&Factors, &Grams, &Matrix) -> Matrix,
    /// X.
    pub x: fn(XChoice, &Factors, &Grams, &FactorPair, &Split) -> Result<Matrix, Error>,
    /// (dA, dB) from U, V and X.
    pub adjusted: fn(&Factors, &Split, &Matrix) -> FactorPair,
    /// The step's special case, by t: there is none.
    pub special_case: fn(u64, FactorPair) -> FactorPair,
    /// E.
    pub equivalent: fn(&Factors, &Split) -> Matrix,
    /// (s B'N, s N A').
    pub of_n: fn(&Factors, &Matrix) -> FactorPair,
    /// The direction toward N, from those gradients and from the closed form's answer to them.
    pub toward: fn(FactorPair, FactorPair) -> FactorPair,

    /// The new momentum of SGD from mu, the old one, (gA, gB) and (dA, dB).
    pub momentum: fn(f64, &FactorPair, &FactorPair, &FactorPair) -> FactorPair,
    /// SGD's direction from mu, the new momentum and (dA, dB).
    pub along: fn(f64, &FactorPair, &FactorPair) -> FactorPair,
    /// What the efficient mode averages in its first moments, from (gA, gB) and (dA, dB).
    pub averaged: fn(&FactorPair, &FactorPair) -> FactorPair,
    /// What it squares for the second, from the same.
    pub squared: fn(&FactorPair, &FactorPair) -> FactorPair,

    /// The running mean of a first moment.
    pub first_mean: fn(f64, &Matrix, &Matrix) -> Matrix,
    /// The running mean of a second moment.
    pub second_mean: fn(f64, &Matrix, &Matrix) -> Matrix,
    /// Which first moment N is made of, from the old and the new one.
    pub numerator: fn(&Matrix, &Matrix) -> Matrix,
    /// X.X.
    pub square: fn(&Matrix) -> Matrix,
    /// 1 - beta1^t.
    pub first_correction: fn(f64, u64) -> f64,
    /// 1 - beta2^t.
    pub second_correction: fn(f64, u64) -> f64,
    /// AMSGrad's new maximum from the old one, V2 and 1 - beta2^t.
    pub largest: fn(&Matrix, &Matrix, f64) -> Matrix,
    /// What N is divided by the root of: the maximum where there is one, else V2.
    pub second: fn(Option<&Matrix>, &Matrix) -> Matrix,
    /// sqrt(v / c2) + eps, from v, c2 and eps.
    pub root: fn(f64, f64, f64) -> f64,

    /// Row and column means of E.E; E also as its parts, s B U and s V A.
    pub mean_squares: fn(&Matrix, [&Matrix; 2]) -> Means,
    /// What Y and Z average: (sU, sV).
    pub tangent: fn(f64, &Split) -> Split,
    /// The same as `root`, for the columns.
    pub column_root: fn(f64, f64, f64) -> f64,
    /// The root of the overall mean, from the mean over the rows and c2.
    pub overall: fn(f64, f64) -> f64,
    /// The first moment on the new factors' tangent space.
    pub transported:
        fn(&Factors, &FactoredMoments, &Factors, Damping) -> Result<FactoredMoments, Error>,

    /// The learning rates of A and B.
    pub rates: fn(f64, f64) -> [f64; 2],
    /// The factor of the trust region on both updates.
    pub update_clip: fn(Option<f64>, &Factors, &FactorPair) -> [f64; 2],
    /// Decay of A and B.
    pub decay: fn(&Hyper, f64) -> Decay,
    /// A factor after the step, from the old one, its decay and its update.
    pub updated: fn(&Matrix, f64, &Matrix) -> Matrix,
    /// What W0 is multiplied by, where it is touched.
    pub base: fn(&Hyper, f64) -> Option<f64>,

    /// What of a new factor reaches memory, from the old and the new one.
    pub written: fn(&Matrix, &Matrix) -> Matrix,
    /// Which state tensors are written.
    pub remembered: fn(Tensors) -> Tensors,
    /// A state tensor's bytes on their way to a checkpoint.
    pub downloaded: fn(&StateTensor, Vec<u8>) -> Vec<u8>,
    /// A state tensor's bytes on their way from a checkpoint.
    pub uploaded: fn(&StateTensor, Vec<u8>) -> Vec<u8>,
    /// The report of an adapter, from what is right and from the updates before their clip.
    pub report: fn(AdapterReport, &FactorPair) -> AdapterReport,

    /// The hyper-parameters of a parameter without a pair.
    pub param_hyper: fn(&Hyper) -> Hyper,
    /// Adam on a parameter without a pair.
    pub param_adam: fn(&Hyper, &Moments, &Matrix, u64) -> (Moments, Matrix),
}

impl Equations {
    /// The reference's.
    pub const EXACT: Equations = Equations {
        control: |control| *control,
        before_checks: |_| {},
        finite: check_representable,
        skipped: |_| {},
        raw: FactorPair::scaled,
        global_norm: |adapters, params| adapters.iter().chain(params).sum::<f64>().sqrt(),
        gradient_clip: |clip| [clip, 1.0],

        gradients_of: |all, k| all[k].clone(),
        hyper: |slots, id| slots[id].hyper,
        scale: |slots, id| slots[id].spec.s(),
        memory: |slots, id| load_state(&slots[id].hyper, &slots[id].state),
        counter: |slots, id| slots[id].state.step + 1,
        counted: |steps| steps + 1,

        signs: |maximize| if maximize { [-1.0; 2] } else { [1.0; 2] },
        grams: Grams::of,
        u: closed_form::u,
        v: closed_form::v,
        x: x::choose,
        adjusted: closed_form::adjusted,
        special_case: |_, direction| direction,
        equivalent: |factors, split| split.equivalent_gradient(factors),
        of_n: factors::factor_gradients,
        toward: |_, adjusted| adjusted,

        momentum: |mu, old, _, adjusted| sgd::with_momentum(mu, old, adjusted),
        along: |_, momentum, _| momentum.clone(),
        averaged: |_, adjusted| adjusted.clone(),
        squared: |_, adjusted| adjusted.clone(),

        first_mean: ema,
        second_mean: ema,
        numerator: |_, new| new.clone(),
        square: |x| x.component_mul(x),
        first_correction: bias_correction,
        second_correction: bias_correction,
        largest: |largest, second, _| largest.sup(second),
        second: |largest, second| largest.unwrap_or(second).clone(),
        root: |v, c2, eps| (v / c2).sqrt() + eps,

        mean_squares: |e, _| factored::mean_squares(e),
        tangent: |s, split| Split {
            u: &split.u * s,
            v: &split.v * s,
        },
        column_root: |v, c2, eps| (v / c2).sqrt() + eps,
        overall: |mean, c2| (mean / c2).sqrt(),
        transported: factored::transported,

        rates: |lr, ratio| [lr, lr * ratio],
        update_clip: |limit, factors, update| [clip::update_clip(limit, factors, update); 2],
        decay: decay::decay,
        updated: |old, decay, update| old * decay - update,
        base: |hyper, lr| hyper.decay_base.then(|| decay::decay(hyper, lr).w0),

        written: |_, new| new.clone(),
        remembered: |tensors| tensors,
        downloaded: |_, bytes| bytes,
        uploaded: |_, bytes| bytes,
        report: |report, _| report,

        param_hyper: Hyper::clone,
        param_adam: adamw::adam,
    };
}
