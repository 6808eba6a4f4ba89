//! The reference with one thing wrong: what the tests must see, or must let pass.

use std::cell::Cell;

use lora_pro_core::{
    Backend, Buffer, Control, DType, Error, HostTensor, Manifest, MatMut, MatRef, PairIo, PairSlot,
    ParamIo, Slots, StateTensor, StepIo, StepReport,
};
use lora_pro_reference::ReferenceBackend;

/// A gradient's entry, by its number (from 1) and value, to what is used instead.
type Change = fn(usize, f64) -> f64;

/// What is wrong.
#[derive(Clone, Copy)]
pub enum Wrong {
    /// The step sees another slot.
    Slot(fn(&mut PairSlot)),
    /// The step sees other gradients of A and B.
    Gradients(Change, Change),
    /// A and B after the step, by row, column, old and new value.
    Factors(fn(usize, usize, f64, f64) -> f64),
    /// The first state tensor is not written.
    Stale,
}

/// The reference, wrong.
pub struct Planted {
    pub inner: ReferenceBackend,
    pub wrong: Wrong,
}

impl Backend for Planted {
    fn manifest(&self) -> Manifest {
        self.inner.manifest()
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        self.inner.allocate(tensor)
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        self.inner.download(tensor, buffer)
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.inner.upload(tensor, buffer, bytes)
    }

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        let StepIo { pairs, params } = io;
        let old: Vec<_> = pairs
            .iter()
            .map(|pair| (same(&pair.a.as_ref()), same(&pair.b.as_ref())))
            .collect();
        let kept: Vec<Kept> = slots.pairs.iter().map(Kept::of).collect();
        if let Wrong::Slot(change) = self.wrong {
            slots.pairs.iter_mut().for_each(change);
        }
        let seen = Slots {
            pairs: &mut *slots.pairs,
            params: slots.params,
        };
        let outcome = self.changed_step(seen, pairs, params, control);
        for (slot, kept) in slots.pairs.iter_mut().zip(kept) {
            kept.put_back(slot, outcome.is_ok(), matches!(self.wrong, Wrong::Stale));
        }
        if let Wrong::Factors(change) = self.wrong {
            for (pair, (a, b)) in pairs.iter_mut().zip(&old) {
                rewrite(&mut pair.a, a, change);
                rewrite(&mut pair.b, b, change);
            }
        }
        outcome
    }
}

impl Planted {
    /// The reference's step with the gradients changed.
    fn changed_step(
        &mut self,
        slots: Slots<'_>,
        pairs: &mut [PairIo<'_>],
        params: &mut [ParamIo<'_>],
        control: &Control,
    ) -> Result<StepReport, Error> {
        let (change_a, change_b): (Change, Change) = match self.wrong {
            Wrong::Gradients(a, b) => (a, b),
            _ => (|_, x| x, |_, x| x),
        };
        let gradients: Vec<_> = pairs
            .iter()
            .map(|pair| {
                (
                    changed(&pair.grad_a, change_a),
                    changed(&pair.grad_b, change_b),
                )
            })
            .collect();
        let mut pairs: Vec<_> = pairs
            .iter_mut()
            .zip(&gradients)
            .map(|(pair, (grad_a, grad_b))| PairIo {
                id: pair.id,
                a: reborrow(&mut pair.a),
                b: reborrow(&mut pair.b),
                grad_a: grad_a.view(),
                grad_b: grad_b.view(),
                base: pair.base.as_mut().map(reborrow),
            })
            .collect();
        let mut params: Vec<_> = params
            .iter_mut()
            .map(|param| ParamIo {
                id: param.id,
                value: reborrow(&mut param.value),
                grad: param.grad,
            })
            .collect();
        let io = StepIo {
            pairs: &mut pairs,
            params: &mut params,
        };
        self.inner.step(slots, io, control)
    }
}

/// What a slot was before it was changed.
struct Kept {
    spec: lora_pro_core::AdapterSpec,
    hyper: lora_pro_core::Hyper,
    step: u64,
    first: Option<HostTensor>,
}

impl Kept {
    fn of(slot: &PairSlot) -> Self {
        let first = slot.state.tensors.first();
        Kept {
            spec: slot.spec.clone(),
            hyper: slot.hyper,
            step: slot.state.step,
            first: first.and_then(|(_, buffer)| buffer.get().cloned()),
        }
    }

    fn put_back(self, slot: &mut PairSlot, stepped: bool, stale: bool) {
        slot.spec = self.spec;
        slot.hyper = self.hyper;
        slot.state.step = self.step + u64::from(stepped);
        slot.report.step = slot.state.step;
        if let (true, Some(first)) = (stale, self.first) {
            slot.state.tensors[0].1 = Buffer::new(first);
        }
    }
}

fn changed(view: &MatRef<'_>, change: Change) -> HostTensor {
    let count = Cell::new(0);
    HostTensor::from_fn(view.dtype(), view.shape(), |i, j| {
        count.set(count.get() + 1);
        change(count.get(), view.get(i, j))
    })
}

fn same(view: &MatRef<'_>) -> HostTensor {
    changed(view, |_, x| x)
}

fn rewrite(new: &mut MatMut<'_>, old: &HostTensor, change: fn(usize, usize, f64, f64) -> f64) {
    for i in 0..new.rows() {
        for j in 0..new.cols() {
            new.set(i, j, change(i, j, old.view().get(i, j), new.get(i, j)));
        }
    }
}

fn reborrow<'b>(view: &'b mut MatMut<'_>) -> MatMut<'b> {
    let (shape, strides) = (view.shape(), view.strides());
    let (dtype, memory) = (view.dtype(), view.memory());
    // SAFETY: the same elements, borrowed mutably from a view that has exclusive access to them.
    unsafe { MatMut::from_raw(view.as_mut_ptr(), shape, strides, dtype, memory) }
}

/// `x` with noise of one or two units in the last place, up or down.
pub fn rounding(count: usize, x: f64, dtype: DType) -> f64 {
    let up = count.wrapping_mul(2_654_435_761) & 64 == 0;
    let noise = 2.0 * dtype.unit_roundoff() * if up { 1.0 } else { -1.0 };
    dtype.round(x * (1.0 + noise))
}
