//! The gap ‖g − E‖_F / ‖g‖_F: how far an adapter's step is from full fine-tuning's.
//!
//! g is the gradient of the merged weight W = W0 + s B A, by a backward pass of its own; training
//! never forms it. Everything here is plain f64 loops on row-major matrices and knows no backend.
//!
//! - LoRA-Pro's E is the orthogonal projection of g on the tangent space {B Y + Z A}, so
//!   g − E = (I − PB) g (I − PA) (laws 1 and 2). Damping is left out: the
//!   gap tells what the adapter could do.
//! - Plain LoRA's E = s (B gA + ρ gB A) = s² (B B'g + ρ g A'A), with ρ the learning rate of B over
//!   that of A.

use std::collections::BTreeMap;

use candle_core::Var;
use lora_pro_candle::LoraLinear;
use lora_pro_candle::bridge::candle_error;
use lora_pro_core::{Error, Method};

use crate::matrix::Matrix;
use crate::trainer::Trainer;

/// The gap over all adapted weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gap {
    /// ‖g − E‖ / ‖g‖.
    pub raw: f64,
    /// The smallest ‖g − c E‖ / ‖g‖ over all c; for a projection the same as `raw`.
    pub rescaled: f64,
}

/// The gap before one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GapPoint {
    /// The step, counted from 1.
    pub step: usize,
    /// The gap on that step's batch.
    pub gap: Gap,
    /// The step's training loss.
    pub loss: f64,
}

/// Takes a run to its end and measures the gap before the first step, every `every` steps, and
/// before the last; `progress` is told the steps done and their number.
pub fn gap_curve(
    trainer: &mut Trainer,
    every: usize,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<GapPoint>, Error> {
    let steps = trainer.run().steps;
    let mut curve = Vec::new();
    while !trainer.finished() {
        let done = trainer.steps_done();
        let gap = match done.is_multiple_of(every.max(1)) || done + 1 == steps {
            true => Some(trainer.gap()?),
            false => None,
        };
        trainer.step()?;
        if let (Some(gap), Some(&loss)) = (gap, trainer.history().losses.get(done)) {
            curve.push(GapPoint {
                step: done + 1,
                gap,
                loss,
            });
        }
        progress(trainer.steps_done(), steps);
    }
    Ok(curve)
}

impl Trainer {
    /// The gap on the batch of the coming step; 0 where weights themselves are trained.
    pub fn gap(&self) -> Result<Gap, Error> {
        let hyper = self.run.config.hyper;
        let mut sums = Sums::default();
        if self.parameters.adapters().next().is_none() {
            return Ok(sums.gap());
        }
        let gradients = self.weight_gradients()?;
        for (adapter, g) in self.parameters.adapters().zip(&gradients) {
            let (a, b) = factors(adapter).map_err(candle_error)?;
            let equivalent = match hyper.method {
                Method::Lora => lora_equivalent(&a, &b, g, adapter.spec().s(), hyper.lr_ratio),
                _ => g.minus(&unreachable_part(&a, &b, g)),
            };
            sums.add(g, &equivalent);
        }
        Ok(sums.gap())
    }

    /// dL/dW of each adapted weight of the merged network, without dropout.
    fn weight_gradients(&self) -> Result<Vec<Matrix>, Error> {
        let mut network = self.network()?;
        let weight = |adapter: &LoraLinear| format!("{}.weight", adapter.spec().name);
        let names: Vec<String> = self.parameters.adapters().map(weight).collect();
        for name in &names {
            network.parameters.train(name)?;
        }
        let batch = self.batch()?;
        let gradients = network
            .outcome(&batch)
            .and_then(|outcome| outcome.loss.backward())
            .map_err(candle_error)?;
        let vars: BTreeMap<&str, &Var> = network.parameters.trained().collect();
        let gradient = |name: &String| match gradients.get(vars[name.as_str()]) {
            Some(gradient) => Matrix::read(gradient),
            None => Matrix::read(&vars[name.as_str()].zeros_like()?),
        };
        names
            .iter()
            .map(gradient)
            .collect::<candle_core::Result<_>>()
            .map_err(candle_error)
    }
}

fn factors(adapter: &LoraLinear) -> candle_core::Result<(Matrix, Matrix)> {
    Ok((Matrix::read(adapter.a())?, Matrix::read(adapter.b())?))
}

/// E = s² (B B'g + ρ g A'A).
fn lora_equivalent(a: &Matrix, b: &Matrix, g: &Matrix, s: f64, ratio: f64) -> Matrix {
    let from_a = b.times(&b.transposed().times(g));
    let from_b = g.times(&a.transposed()).times(a);
    from_a.scaled(s * s).plus(&from_b.scaled(s * s * ratio))
}

/// g − E = (I − PB) g (I − PA).
fn unreachable_part(a: &Matrix, b: &Matrix, g: &Matrix) -> Matrix {
    let (rows, columns) = (a.orthonormal_rows(), b.transposed().orthonormal_rows());
    let right = g.minus(&g.times(&rows.transposed()).times(&rows));
    right.minus(&columns.transposed().times(&columns.times(&right)))
}

/// ‖g‖², ‖E‖² and <g, E>, summed over weights.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    gg: f64,
    ee: f64,
    ge: f64,
    rest: f64,
}

impl Sums {
    fn add(&mut self, g: &Matrix, e: &Matrix) {
        let rest = g.minus(e);
        self.gg += g.dot(g);
        self.ee += e.dot(e);
        self.ge += g.dot(e);
        self.rest += rest.dot(&rest);
    }

    /// With E = 0, nothing of g is reached; with g = 0 there is nothing to reach.
    fn gap(self) -> Gap {
        if self.gg == 0.0 {
            return Gap::default();
        }
        let reached = if self.ee > 0.0 {
            self.ge * self.ge / (self.ee * self.gg)
        } else {
            0.0
        };
        Gap {
            raw: (self.rest / self.gg).sqrt(),
            rescaled: (1.0 - reached).max(0.0).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, cols: usize, values: &[f64]) -> Matrix {
        Matrix {
            rows,
            cols,
            values: values.to_vec(),
        }
    }

    #[test]
    fn the_projection_leaves_what_no_factor_reaches() {
        let (a, b) = (matrix(1, 2, &[1., 0.]), matrix(2, 1, &[0., 2.]));
        let g = matrix(2, 2, &[1., 2., 3., 4.]);
        assert_eq!(
            unreachable_part(&a, &b, &g),
            matrix(2, 2, &[0., 2., 0., 0.])
        );
        let zero = matrix(2, 1, &[0., 0.]);
        assert_eq!(
            unreachable_part(&a, &zero, &g),
            matrix(2, 2, &[0., 2., 0., 4.])
        );
    }

    #[test]
    fn rescaling_takes_the_best_multiple() {
        let g = matrix(1, 2, &[1., 0.]);
        let mut sums = Sums::default();
        sums.add(&g, &g.scaled(3.0));
        assert_eq!(
            sums.gap(),
            Gap {
                raw: 2.0,
                rescaled: 0.0
            }
        );
        let (a, b) = (matrix(1, 2, &[1., 0.]), matrix(1, 1, &[2.]));
        let equivalent = lora_equivalent(&a, &b, &g, 0.5, 1.0);
        assert_eq!(equivalent, g.scaled(0.25 * (4.0 + 1.0)));
    }
}
