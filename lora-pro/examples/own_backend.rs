//! A backend of one's own: AdamW on A and B (`method = "lora"`), one formula per line. What it does
//! not do it rejects, and a step is written as a whole or not at all.
//!
//! `tests/own_backend.rs` runs the conformance kit on it.

use lora_pro::backend::{
    AdapterSlot, Buffer, Control, Slots, StateTensor, StepIo, find_non_finite, foreign_buffer,
    ratio_or_zero, reject,
};
use lora_pro::{
    Backend, Error, Factor, HostTensor, Manifest, MatRef, Method, Moment, StateKind, StepReport,
};

const NAME: &str = "plain";

pub(crate) struct Plain;

impl Backend for Plain {
    fn manifest(&self) -> Manifest {
        Manifest::new(NAME, env!("CARGO_PKG_VERSION"))
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        Ok(Buffer::new(HostTensor::zeros(tensor.dtype, tensor.shape)))
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        Ok(host(buffer, tensor.kind)?.bytes().to_vec())
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        tensor.check_bytes(bytes)?;
        let host = HostTensor::from_bytes(tensor.dtype, tensor.shape, bytes.to_vec());
        *buffer = Buffer::new(host.ok_or_else(|| foreign_buffer(NAME, tensor.kind))?);
        Ok(())
    }

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        if !io.params.is_empty() || control.max_grad_norm.is_some() {
            let what = "unpaired parameters and the norm clip";
            return Err(unsupported("the step", what));
        }
        let mut updates = Vec::new();
        for adapter in io.adapters.iter() {
            let slot = &slots.adapters[adapter.id.index()];
            let a = adamw(slot, control, Factor::A, adapter.a.view(), adapter.grad_a)?;
            let b = adamw(slot, control, Factor::B, adapter.b.view(), adapter.grad_b)?;
            // NaN and infinity in a factor or a gradient are in the update as well.
            let mut tensors = a.tensors.iter().chain(&b.tensors);
            if tensors.any(|tensor| find_non_finite(&tensor.view()).is_some()) {
                let rejection = reject(&slots, &io, &slot.spec.subject(), &mut find_non_finite);
                return rejection.into_outcome(control);
            }
            updates.push([a, b]);
        }
        let mut squares = 0.0;
        for (adapter, [a, b]) in io.adapters.iter_mut().zip(updates) {
            let AdapterSlot { state, report, .. } = &mut slots.adapters[adapter.id.index()];
            state.step += 1;
            report.step = state.step;
            report.grad_norm = [a.grad_norm, b.grad_norm].into();
            report.update_norm = [a.update_norm, b.update_norm].into();
            report.relative_update = [a.relative, b.relative].into();
            report.equivalent_norm = f64::NAN; // not computed
            report.clip = 1.0;
            squares += a.grad_norm.powi(2) + b.grad_norm.powi(2);
            for (update, parameter) in [(a, &mut adapter.a), (b, &mut adapter.b)] {
                let [value, first, second] = update.tensors;
                let value = value.view();
                entries(&value).for_each(|(i, j)| parameter.set(i, j, value.get(i, j)));
                *state.buffer_mut(update.kinds[0])? = Buffer::new(first);
                *state.buffer_mut(update.kinds[1])? = Buffer::new(second);
            }
        }
        Ok(StepReport::new(control.lr_factor, squares.sqrt(), 1.0))
    }
}

/// What a step makes of one factor.
struct Update {
    /// The factor, its first and its second moment.
    tensors: [HostTensor; 3],
    /// Of the moments.
    kinds: [StateKind; 2],
    /// |g|.
    grad_norm: f64,
    /// |lr n|.
    update_norm: f64,
    /// |lr n| / |x|.
    relative: f64,
}

/// AdamW's step of a factor x with gradient g.
fn adamw(
    slot: &AdapterSlot,
    control: &Control,
    factor: Factor,
    x: MatRef<'_>,
    g: MatRef<'_>,
) -> Result<Update, Error> {
    check_options(slot)?;
    let h = &slot.hyper;
    let kinds = [Moment::First, Moment::Second].map(|moment| StateKind::Factor(moment, factor));
    let m = host(slot.state.buffer(kinds[0])?, kinds[0])?.view();
    let v = host(slot.state.buffer(kinds[1])?, kinds[1])?.view();

    let t = slot.state.step as f64 + 1.0;
    let (c1, c2) = (1.0 - h.beta1.powf(t), 1.0 - h.beta2.powf(t));
    let ratio = if factor == Factor::B { h.lr_ratio } else { 1.0 };
    let lr = h.lr * control.lr_factor * ratio;
    let g = |i, j| g.get(i, j) * control.grad_scale;
    let new_m = |i, j| h.beta1 * m.get(i, j) + (1.0 - h.beta1) * g(i, j);
    let new_v = |i, j| h.beta2 * v.get(i, j) + (1.0 - h.beta2) * g(i, j) * g(i, j);
    let n = |i, j| (new_m(i, j) / c1) / ((new_v(i, j) / c2).sqrt() + h.eps);
    let new_x = |i, j| x.get(i, j) * (1.0 - lr * h.weight_decay) - lr * n(i, j);

    let norm = |f: &dyn Fn(usize, usize) -> f64| {
        let squares: f64 = entries(&x).map(|(i, j)| f(i, j).powi(2)).sum();
        squares.sqrt()
    };
    let update_norm = lr * norm(&n);
    Ok(Update {
        tensors: [
            HostTensor::from_fn(x.dtype(), x.shape(), new_x),
            HostTensor::from_fn(m.dtype(), m.shape(), new_m),
            HostTensor::from_fn(v.dtype(), v.shape(), new_v),
        ],
        kinds,
        grad_norm: norm(&g),
        update_norm,
        relative: ratio_or_zero(update_norm, norm(&|i, j| x.get(i, j))),
    })
}

/// What was asked for runs, or an error.
fn check_options(slot: &AdapterSlot) -> Result<(), Error> {
    let h = &slot.hyper;
    let what = if h.method != Method::Lora {
        format!("method {}", h.method)
    } else if h.amsgrad || h.maximize || h.decay_base || h.update_clip.is_some() {
        "amsgrad, maximize, decay_base, update_clip".into()
    } else {
        return Ok(());
    };
    Err(unsupported(&slot.spec.subject(), &what))
}

fn entries(x: &MatRef<'_>) -> impl Iterator<Item = (usize, usize)> + use<> {
    let [rows, cols] = x.shape();
    (0..rows).flat_map(move |i| (0..cols).map(move |j| (i, j)))
}

fn host(buffer: &Buffer, kind: StateKind) -> Result<&HostTensor, Error> {
    buffer.get().ok_or_else(|| foreign_buffer(NAME, kind))
}

fn unsupported(subject: &str, what: &str) -> Error {
    Error::Unsupported {
        subject: subject.into(),
        backend: NAME.into(),
        what: what.into(),
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let config = lora_pro::Config::from(lora_pro::Hyper::default().method(Method::Lora));
    let optimizer = lora_pro::Optimizer::new(Plain, config)?;
    println!("{:#?}", optimizer.manifest());
    Ok(())
}
