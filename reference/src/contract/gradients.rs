//! The gradients of a whole step and their global norm.

use lora_pro_core::Error;
use lora_pro_core::backend::{Slots, StepIo};
use nalgebra::DMatrix;

use super::storage::read_finite;
use crate::factors::FactorPair;

/// All gradients in the caller's order, times `grad_scale`, and their global norm.
pub(super) struct Gradients {
    pub adapters: Vec<FactorPair>,
    pub params: Vec<DMatrix<f64>>,
    pub norm: f64,
}

impl Gradients {
    /// # Errors
    /// [`Error::NonFinite`] of the first entry that is not finite.
    pub fn read(slots: &Slots<'_>, io: &StepIo<'_, '_>, grad_scale: f64) -> Result<Self, Error> {
        let mut squares = 0.0;
        let mut adapters = Vec::new();
        for adapter in io.adapters.iter() {
            let subject = slots.adapters[adapter.id.index()].spec.subject();
            let a = read_finite(&adapter.grad_a, &subject, "grad A")? * grad_scale;
            let b = read_finite(&adapter.grad_b, &subject, "grad B")? * grad_scale;
            squares += a.norm_squared() + b.norm_squared();
            adapters.push(FactorPair { a, b });
        }
        let mut params = Vec::new();
        for param in io.params.iter() {
            let subject = slots.params[param.id.index()].spec.subject();
            let gradient = read_finite(&param.grad, &subject, "grad")? * grad_scale;
            squares += gradient.norm_squared();
            params.push(gradient);
        }
        let norm = squares.sqrt();
        Ok(Gradients {
            adapters,
            params,
            norm,
        })
    }
}
