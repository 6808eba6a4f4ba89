//! One step of one adapter, as in the reference's `step`, each equation looked up in the table.

use lora_pro_core::backend::ratio_or_zero;
use lora_pro_core::{AdapterReport, Error, Hyper, Method};
use lora_pro_reference::closed_form::Split;
use lora_pro_reference::damping::Grams;
use lora_pro_reference::equivalent::equivalent_gradient;
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::state::OptimizerState;

use super::equations::{Equations, Matrix};

/// What a step starts from, besides the adapter itself.
pub(super) struct Setting<'a> {
    pub hyper: &'a Hyper,
    pub lr: f64,
    pub t: u64,
    /// What the global clip leaves of the gradients and of the direction.
    pub clip: [f64; 2],
}

/// What a step leads to.
pub(super) struct Stepped {
    pub factors: Factors,
    pub memory: OptimizerState,
    pub base: Option<f64>,
    pub report: AdapterReport,
}

impl Equations {
    pub(super) fn step(
        &self,
        setting: &Setting<'_>,
        factors: &Factors,
        gradients: &FactorPair,
        memory: &OptimizerState,
    ) -> Result<Stepped, Error> {
        let &Setting { hyper, lr, t, clip } = setting;
        let signs = (self.signs)(hyper.maximize);
        let signed = each(&gradients.scaled(clip[0]), signs);
        let (direction, memory, equivalent_norm) =
            self.direction(setting, factors, &signed, memory)?;
        let direction = (self.special_case)(t, direction).scaled(clip[1]);

        let whole = each(&direction, (self.rates)(lr, hyper.lr_ratio));
        let clip = (self.update_clip)(hyper.update_clip, factors, &whole);
        let update = each(&whole, clip);

        let decay = (self.decay)(hyper, lr);
        let new_factors = Factors {
            a: (self.updated)(&factors.a, decay.a, &update.a),
            b: (self.updated)(&factors.b, decay.b, &update.b),
            s: factors.s,
        };
        let memory = match memory {
            OptimizerState::Factored(state) => OptimizerState::Factored((self.transported)(
                factors,
                &state,
                &new_factors,
                hyper.damping,
            )?),
            other => other,
        };
        let report = {
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
            report.clip = clip[0];
            report
        };
        Ok(Stepped {
            factors: new_factors,
            memory,
            base: (self.base)(hyper, lr),
            report: (self.report)(report, &whole),
        })
    }

    /// The direction of the method, its new memory and |E|.
    fn direction(
        &self,
        setting: &Setting<'_>,
        factors: &Factors,
        gradients: &FactorPair,
        memory: &OptimizerState,
    ) -> Result<(FactorPair, OptimizerState, f64), Error> {
        let &Setting { hyper, t, .. } = setting;
        if let (Method::Lora, OptimizerState::Factors(old)) = (hyper.method, memory) {
            let (new, direction) = self.adam_on_factors(hyper, old, [gradients; 2], t);
            let norm = equivalent_gradient(factors, gradients).norm();
            return Ok((direction, OptimizerState::Factors(new), norm));
        }
        let grams = (self.grams)(factors, hyper.damping)?;
        let split = self.split(factors, &grams, gradients);
        let e = (self.equivalent)(factors, &split);
        let (direction, memory) = match (hyper.method, memory) {
            (Method::Sgd, OptimizerState::Momentum(None)) => (
                self.closed_form(hyper, factors, &grams, gradients, &split)?,
                OptimizerState::Momentum(None),
            ),
            (Method::Sgd, OptimizerState::Momentum(Some(old))) => {
                let new = self.closed_form(hyper, factors, &grams, gradients, &split)?;
                let momentum = (self.momentum)(hyper.momentum, old, gradients, &new);
                let direction = (self.along)(hyper.momentum, &momentum, &new);
                (direction, OptimizerState::Momentum(Some(momentum)))
            }
            (Method::Efficient, OptimizerState::Factors(old)) => {
                let pair = self.closed_form(hyper, factors, &grams, gradients, &split)?;
                let averaged = (self.averaged)(gradients, &pair);
                let squared = (self.squared)(gradients, &pair);
                let (new, direction) = self.adam_on_factors(hyper, old, [&averaged, &squared], t);
                (direction, OptimizerState::Factors(new))
            }
            (Method::Full, OptimizerState::Full(old)) => {
                let (new, n) = self.adam(hyper, old, [&e; 2], t);
                (
                    self.toward(hyper, factors, &grams, &n)?,
                    OptimizerState::Full(new),
                )
            }
            (Method::Factored, OptimizerState::Factored(old)) => {
                let new = self.factored_moments(setting, factors, old, &split, &e);
                let n = self.factored_n(hyper, factors, [old, &new], t);
                (
                    self.toward(hyper, factors, &grams, &n)?,
                    OptimizerState::Factored(new),
                )
            }
            _ => {
                let expected = "that of the method";
                let other = "another method's";
                return Err(Error::invalid("the optimizer", "state", other, expected));
            }
        };
        Ok((direction, memory, e.norm()))
    }

    fn split(&self, factors: &Factors, grams: &Grams, gradients: &FactorPair) -> Split {
        Split {
            u: (self.u)(factors.s, &grams.sb_inverse, &gradients.a),
            v: (self.v)(factors, grams, &gradients.b),
        }
    }

    fn closed_form(
        &self,
        hyper: &Hyper,
        factors: &Factors,
        grams: &Grams,
        gradients: &FactorPair,
        split: &Split,
    ) -> Result<FactorPair, Error> {
        let x = (self.x)(hyper.x, factors, grams, gradients, split)?;
        Ok((self.adjusted)(factors, split, &x))
    }

    /// N takes the place of g.
    fn toward(
        &self,
        hyper: &Hyper,
        factors: &Factors,
        grams: &Grams,
        n: &Matrix,
    ) -> Result<FactorPair, Error> {
        let gradients = (self.of_n)(factors, n);
        let split = self.split(factors, grams, &gradients);
        let adjusted = self.closed_form(hyper, factors, grams, &gradients, &split)?;
        Ok((self.toward)(gradients, adjusted))
    }
}

/// Each matrix of a pair times a number of its own.
fn each(pair: &FactorPair, [a, b]: [f64; 2]) -> FactorPair {
    FactorPair {
        a: &pair.a * a,
        b: &pair.b * b,
    }
}
