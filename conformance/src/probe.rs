//! Reading (dA, dB) off one step, whatever the method, without looking inside.
//!
//! The step is made so long that what it starts from is a rounding error beside it: A moves by
//! `lr dA`, so `dA = (A_old - A_new) / lr`. What the methods do to dA before they step along it is
//! undone by a choice of eps:
//!
//! | method | first step along | eps | undone by |
//! |---|---|---|---|
//! | sgd | d | | |
//! | efficient | n = d / (\|d\| + eps), entry by entry | the largest \|d\| | d = eps n / (1 - \|n\|) |
//! | full | the (dA, dB) of N = E / (\|E\| + eps) | E / u | N = E / eps |
//! | factored | the (dA, dB) of N = E rms(E) / eps^2 | E / u | \|N\| shows rms(E) |
//!
//! The last two use that the (dA, dB) of c E are c times those of g.

use lora_pro_core::backend::ratio_or_zero;
use lora_pro_core::{DType, Damping, Error, Method, XChoice};
use lora_pro_reference::closed_form::{adjusted, split};
use lora_pro_reference::damping::Grams;
use lora_pro_reference::equivalent::equivalent_gradient;
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::x::choose;
use nalgebra::DMatrix;

/// How much longer than A and B the step is.
const LONGER: f64 = 1024.0;

/// Less of a part than this is not asked for.
const NOTHING: f64 = 1e-6;

/// No step is longer than this, so that neither it nor its square overflows: f32 ends at 3e38, f64
/// at 1e308, where squares are summed.
fn longest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e140,
        _ => 1e30,
    }
}

/// Sizes of the right answer, from which those of the step are chosen. The answer itself does not
/// depend on them but by rounding.
pub(crate) struct ExpectedSizes {
    /// |dA| and |dB|, no smaller than what rounding of their parts leaves of them.
    lengths: [f64; 2],
    /// The largest entry of dA and dB.
    entry: f64,
    /// The largest entry of E.
    e: f64,
    /// The root of the mean of E.E.
    rms: f64,
}

impl ExpectedSizes {
    /// Of an adapter, its gradients, X and damping.
    pub(crate) fn of(
        factors: &Factors,
        gradients: &FactorPair,
        x: XChoice,
        damping: Damping,
    ) -> Result<Self, Error> {
        let grams = Grams::of(factors, damping)?;
        let parts = split(factors, &grams, gradients);
        let x = choose(x, factors, &grams, gradients, &parts)?;
        let right = adjusted(factors, &parts, &x);
        let e = equivalent_gradient(factors, &right);
        // Parts cancel: what is left of them may be nothing but rounding, and is not asked for.
        let floor =
            |whole: &DMatrix<f64>, part: &DMatrix<f64>| whole.norm().max(NOTHING * part.norm());
        let unprojected = grams.sa_inverse.apply_right(&gradients.b) / (factors.s * factors.s);
        Ok(ExpectedSizes {
            lengths: [floor(&right.a, &parts.u), floor(&right.b, &unprojected)],
            entry: right.a.amax().max(right.b.amax()),
            e: e.amax(),
            rms: e.norm() / (e.len() as f64).sqrt(),
        })
    }
}

/// A step from which (dA, dB) can be read.
pub(crate) struct Probe {
    method: Method,
    /// Its learning rate.
    pub(crate) lr: f64,
    /// Its eps.
    pub(crate) eps: f64,
}

impl Probe {
    pub(crate) fn new(
        method: Method,
        dtype: DType,
        factors: &Factors,
        expected: &ExpectedSizes,
    ) -> Self {
        let or_one = |x: f64| if x > 0.0 { x } else { 1.0 };
        let eps = match method {
            Method::Lora | Method::Sgd => 1.0,
            Method::Efficient => or_one(expected.entry),
            Method::Factored | Method::Full => or_one(expected.e) / dtype.unit_roundoff(),
        };
        // What the method makes of a unit of (dA, dB).
        let unit = match method {
            Method::Lora | Method::Sgd => 1.0,
            Method::Efficient | Method::Full => 1.0 / eps,
            Method::Factored => or_one(expected.rms) / eps / eps,
        };
        let [a, b] = expected.lengths;
        let long = |factor: &DMatrix<f64>, d: f64| ratio_or_zero(LONGER * factor.norm(), d);
        let needed = [(&factors.a, a), (&factors.b, b)]
            .map(|(factor, d)| if d > 0.0 { long(factor, d) } else { 0.0 });
        let longest = longest(dtype);
        let rate = or_one(needed[0].max(needed[1])).min(longest / or_one(a.max(b)));
        Probe {
            method,
            lr: (rate / unit).min(longest),
            eps,
        }
    }

    /// (dA, dB) from how far each factor moved in units of lr.
    pub(crate) fn read(&self, factors: &Factors, moved: &FactorPair) -> FactorPair {
        let eps = self.eps;
        match self.method {
            Method::Lora | Method::Sgd => moved.clone(),
            Method::Efficient => {
                let undone = |n: &DMatrix<f64>| n.map(|n| eps * n / (1.0 - n.abs()));
                FactorPair {
                    a: undone(&moved.a),
                    b: undone(&moved.b),
                }
            }
            Method::Full => moved.scaled(eps),
            Method::Factored => {
                // |N| = |E| rms(E) / eps^2 = mn rms(E)^2 / ((mn)^(1/2) eps^2).
                let n = equivalent_gradient(factors, moved);
                let rms = eps * (n.norm() / (n.len() as f64).sqrt()).sqrt();
                let unit = ratio_or_zero(eps, rms) * eps;
                moved.scaled(if rms > 0.0 { unit } else { 1.0 })
            }
        }
    }
}
