//! One unpaired parameter's step: AdamW on its own.

use lora_pro_core::backend::{Buffer, Control, ParamSlot, StateKind};
use lora_pro_core::{Error, ParamIo};
use nalgebra::DMatrix;

use super::moments::{load_moments, moment_tensors};
use super::storage::{
    check_representable, new_buffers, read_finite, read_through_master, replace_buffers,
    round_to_master, store,
};
use crate::adamw::adam;

/// Everything that a step of one parameter writes, checked.
pub(super) struct ParamStep {
    value: DMatrix<f64>,
    buffers: Vec<Buffer>,
}

impl ParamStep {
    /// The step along `gradient`, which is scaled and clipped. Nothing is written.
    pub fn compute(
        slot: &ParamSlot,
        io: &ParamIo<'_>,
        gradient: &DMatrix<f64>,
        control: &Control,
    ) -> Result<Self, Error> {
        let ParamSlot { spec, hyper, state } = slot;
        let subject = spec.subject();
        let value = read_finite(&io.value.view(), &subject, "value")?;
        let value = read_through_master(value, state, StateKind::ParamMaster, spec.dtype)?;
        let old = load_moments(state, StateKind::Param, hyper.amsgrad)?;
        let sign = if hyper.maximize { -1.0 } else { 1.0 };
        let t = state.step + 1;
        let lr = hyper.lr * control.lr_factor;
        let (moments, n) = adam(hyper, &old, &(gradient * sign), t);
        let value = value * (1.0 - lr * hyper.weight_decay) - n * lr;

        let value = round_to_master(value, state, StateKind::ParamMaster);
        check_representable(&value, spec.dtype, &subject, "value after the step")?;
        let mut tensors = moment_tensors(&moments, StateKind::Param);
        tensors.push((StateKind::ParamMaster, value.clone()));
        Ok(ParamStep {
            buffers: new_buffers(state, &tensors, &subject)?,
            value,
        })
    }

    /// Writes value, state and counter. Cannot fail.
    pub fn commit(self, slot: &mut ParamSlot, io: &mut ParamIo<'_>) {
        store(&self.value, &mut io.value);
        replace_buffers(&mut slot.state, self.buffers);
        slot.state.step += 1;
    }
}
