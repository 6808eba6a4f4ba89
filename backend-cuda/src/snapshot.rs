//! State as it was before a step that might overflow, and whether what came out is finite.

use half::bf16;
use lora_pro_core::backend::{
    Buffer, Slots, State, StateTensor, StepIo, find_non_finite, foreign_buffer,
};
use lora_pro_core::{DType, Error, MatRef};

use crate::NAME;
use crate::device::Device;
use crate::device_buffer::DeviceBuffer;
use crate::state_buffer::StateBuffer;
use crate::views::to_host;

/// Copies of all state of a set.
pub(crate) struct Snapshot(Vec<DeviceBuffer>);

fn states<'s>(slots: &'s Slots<'_>, ids: &'s [Vec<usize>; 2]) -> impl Iterator<Item = &'s State> {
    let adapters = ids[0].iter().map(|id| &slots.adapters[*id].state);
    adapters.chain(ids[1].iter().map(|id| &slots.params[*id].state))
}

fn state_buffer((tensor, buffer): &(StateTensor, Buffer)) -> Result<&StateBuffer, Error> {
    buffer
        .get::<StateBuffer>()
        .ok_or_else(|| foreign_buffer(NAME, tensor.kind))
}

impl Snapshot {
    pub(crate) fn take(
        stream: u64,
        slots: &Slots<'_>,
        ids: &[Vec<usize>; 2],
    ) -> Result<Self, Error> {
        let tensors = states(slots, ids).flat_map(|state| &state.tensors);
        let copies = tensors.map(|tensor| state_buffer(tensor)?.buffer.copied(stream));
        Ok(Snapshot(copies.collect::<Result<_, _>>()?))
    }

    pub(crate) fn restore(
        &self,
        stream: u64,
        slots: &Slots<'_>,
        ids: &[Vec<usize>; 2],
    ) -> Result<(), Error> {
        let tensors = states(slots, ids).flat_map(|state| &state.tensors);
        for (tensor, copy) in tensors.zip(&self.0) {
            state_buffer(tensor)?.buffer.take(stream, copy)?;
        }
        Ok(())
    }
}

/// Rejects a step after which a factor, a value or a state tensor is not finite.
pub(crate) fn check(
    device: &dyn Device,
    stream: u64,
    slots: &Slots<'_>,
    io: &StepIo<'_, '_>,
    ids: &[Vec<usize>; 2],
) -> Result<(), Error> {
    let view = |view: &MatRef<'_>, subject: String, tensor| {
        let host = to_host(device, stream, view)?;
        reject(find_non_finite(&host.view()), subject, tensor)
    };
    for adapter in io.adapters.iter() {
        let subject = || slots.adapters[adapter.id.index()].spec.subject();
        view(&adapter.a.view(), subject(), "A after the step")?;
        view(&adapter.b.view(), subject(), "B after the step")?;
    }
    for param in io.params.iter() {
        let subject = slots.params[param.id.index()].spec.subject();
        view(&param.value.view(), subject, "value after the step")?;
    }
    let adapters = ids[0].iter().map(|id| &slots.adapters[*id]);
    let adapters = adapters.map(|slot| (slot.spec.subject(), &slot.state));
    let params = ids[1].iter().map(|id| &slots.params[*id]);
    let params = params.map(|slot| (slot.spec.subject(), &slot.state));
    for (subject, state) in adapters.chain(params) {
        for tensor in &state.tensors {
            let bytes = state_buffer(tensor)?.download(stream, &tensor.0)?;
            reject(
                non_finite(&tensor.0, &bytes),
                subject.clone(),
                tensor.0.name(),
            )?;
        }
    }
    Ok(())
}

fn reject(
    found: Option<(usize, usize, f64)>,
    subject: String,
    tensor: &'static str,
) -> Result<(), Error> {
    match found {
        None => Ok(()),
        Some((row, col, value)) => Err(Error::NonFinite {
            subject,
            tensor,
            row,
            col,
            value,
        }),
    }
}

/// Row, column and value of the first entry of row-major bytes that is not finite.
fn non_finite(tensor: &StateTensor, bytes: &[u8]) -> Option<(usize, usize, f64)> {
    let value = |element: &[u8]| match (tensor.dtype, element) {
        (DType::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        (DType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
        (DType::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f64(),
        // Codes are always finite.
        _ => 0.0,
    };
    let values = bytes.chunks_exact(tensor.dtype.size()).map(value);
    let (at, value) = values.enumerate().find(|(_, value)| !value.is_finite())?;
    Some((at / tensor.shape[1], at % tensor.shape[1], value))
}
