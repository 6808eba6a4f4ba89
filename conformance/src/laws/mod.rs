//! The laws, one file each. A law takes a subject and a case and returns a ratio that must be
//! below [`crate::residual::THRESHOLD`].
//!
//! The equivalent gradient E does not see X: laws on E alone (1 to 4 and 7 to 11) find no wrong
//! Sylvester solver. Laws 5, 6, 15, 16 and 17 do. Laws 1 to 18 are the derivation's; those from 19
//! on hold the options to their definitions.

use lora_pro_core::{Error, Method, XChoice};
use lora_pro_reference::damping::Grams;
use lora_pro_reference::equivalent::equivalent_gradient;
use lora_pro_reference::factors::{FactorPair, Factors, factor_gradients};
use nalgebra::DMatrix;

use crate::methods::{CLOSED_FORM, WITH_MOMENTS};
use crate::sample::{CaseSpec, rounded_pair};
use crate::subject::{Subject, exact};

pub use crate::methods::METHODS;

mod amsgrad;
mod balance;
mod clip;
mod damping;
mod decay;
mod descent;
mod exactness;
mod fresh_start;
mod gradients;
mod independence;
mod momentum;
mod nearness;
mod neighbours;
mod optimality;
mod orthogonality;
mod rank_deficient;
mod recurrence;
mod rejection;
mod reparametrisation;
mod report;
mod resume;
mod rotation;
mod rotation_of_factors;
mod scale;
mod schedule;
mod skip;
mod sylvester;
mod transpose;
mod units;
mod unpaired;
mod x_invariance;
mod zero_gradient;

/// What a law needs of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// Factors of full rank, any condition number.
    FullRank,
    /// Factors of any rank, zero included.
    AnyRank,
    /// An adapter as training meets it, stepped several times.
    Trajectory,
}

/// One law.
pub struct Law {
    /// Its number in the list of laws.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// What holds, in one line.
    pub formula: &'static str,
    /// Errors that it passes over.
    pub cannot_see: &'static str,
    /// Which cases it is about.
    pub applies: Applies,
    /// Which methods it is about.
    pub methods: &'static [Method],
    check: fn(&Subject, &CaseSpec, Method) -> Result<f64, Error>,
}

impl Law {
    /// Its name in records and reports.
    pub fn id(&self) -> String {
        format!("law-{:02}-{}", self.number, self.name)
    }

    /// The ratio for one case, in the subject's storage type.
    ///
    /// # Errors
    /// What the subject refuses and should not; [`Error::Unsupported`] where it does not do what
    /// the law is about.
    pub fn ratio(&self, subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
        let spec = CaseSpec {
            dtype: subject.dtype,
            ..*spec
        };
        (self.check)(subject, &spec, method)
    }
}

/// All of them, by number.
pub const LAWS: &[Law] = &[
    orthogonality::LAW,
    optimality::LAW,
    x_invariance::LAW,
    descent::LAW,
    sylvester::LAW,
    nearness::LAW,
    reparametrisation::LAW,
    rotation::LAW,
    scale::LAW,
    exactness::LAW,
    rank_deficient::LAW,
    recurrence::LAW,
    independence::LAW,
    resume::LAW,
    balance::LAW,
    transpose::LAW,
    rotation_of_factors::LAW,
    rejection::LAW,
    momentum::LAW,
    decay::LAW,
    clip::LAW,
    gradients::LAW,
    skip::LAW,
    amsgrad::LAW,
    unpaired::LAW,
    zero_gradient::LAW,
    units::LAW,
    fresh_start::LAW,
    neighbours::LAW,
    schedule::LAW,
    damping::LAW,
    report::LAW,
];

/// All choices of X.
const XS: [XChoice; 3] = [XChoice::Sylvester, XChoice::Symmetric, XChoice::Zero];

/// What a subject answers for one case.
struct Answer {
    factors: Factors,
    /// The full gradient.
    g: DMatrix<f64>,
    /// (gA, gB).
    gradients: FactorPair,
    /// (dA, dB).
    adjusted: FactorPair,
    /// The equivalent gradient of (dA, dB).
    e: DMatrix<f64>,
}

impl Answer {
    fn of(subject: &Subject, spec: &CaseSpec, method: Method, x: XChoice) -> Result<Self, Error> {
        Self::to(subject, method, spec.factors(), spec.full_gradient(1), x)
    }

    fn to(
        subject: &Subject,
        method: Method,
        factors: Factors,
        g: DMatrix<f64>,
        x: XChoice,
    ) -> Result<Self, Error> {
        let factors = subject.stored(&factors);
        let gradients = rounded_pair(subject.dtype, &factor_gradients(&factors, &g));
        let adjusted = subject.adjusted(&factors, &gradients, method, x)?;
        let e = equivalent_gradient(&factors, &adjusted);
        Ok(Answer {
            factors,
            g,
            gradients,
            adjusted,
            e,
        })
    }
}

impl Answer {
    /// Sizes that dA and dB can have: their own, or that of g seen through the smallest singular
    /// value of the other factor. U and X A, or V and B X, may be of this size and cancel.
    fn sizes(&self, spec: &CaseSpec) -> [f64; 2] {
        let through = |factor: &DMatrix<f64>, kappa: f64| match factor.norm() {
            0.0 => 0.0,
            norm => kappa * self.g.norm() / (self.factors.s * norm),
        };
        [
            self.adjusted.a.norm() + through(&self.factors.b, spec.kappa_b),
            self.adjusted.b.norm() + through(&self.factors.a, spec.kappa_a),
        ]
    }
}

/// Gram inverses with which a law follows a trajectory on its own.
fn grams(factors: &Factors, method: Method) -> Result<Grams, Error> {
    Grams::of(factors, exact(method).damping)
}
