//! A backend of one's own: AdamW on A and B (`method = "lora"`), entry by entry. What it does not do
//! it rejects, before anything is written.
//!
//! `lora-pro-conformance` holds a whole backend against the laws: a test of
//! `run(&[Suite::new("mine", || Box::new(Mine))])`, as in `backend-cpu/tests/conformance.rs`.

use lora_pro::backend::{
    AdapterSlot, Buffer, Control, Slots, State, StateTensor, StepIo, find_non_finite,
    foreign_buffer, reject,
};
use lora_pro::{
    Backend, Error, Factor, HostTensor, Hyper, Manifest, MatMut, MatRef, Method, Moment, StateKind,
    StepReport,
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
        let host = buffer.get::<HostTensor>();
        let host = host.ok_or_else(|| foreign_buffer(NAME, tensor.kind))?;
        Ok(host.bytes().to_vec())
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
            return Err(unsupported(
                "the step",
                "unpaired parameters or a norm clip",
            ));
        }
        for adapter in io.adapters.iter() {
            let slot = &slots.adapters[adapter.id.index()];
            check_options(slot)?;
            let tensors = [
                adapter.a.view(),
                adapter.b.view(),
                adapter.grad_a,
                adapter.grad_b,
            ];
            if tensors.iter().any(|view| find_non_finite(view).is_some()) {
                let rejection = reject(&slots, &io, &slot.spec.subject(), &mut find_non_finite);
                return rejection.into_outcome(control);
            }
        }
        let mut squares = 0.0;
        for adapter in io.adapters.iter_mut() {
            let slot = &mut slots.adapters[adapter.id.index()];
            slot.state.step += 1;
            let (hyper, state, report) = (slot.hyper, &mut slot.state, &mut slot.report);
            report.step = state.step;
            let a = adamw(
                &hyper,
                control,
                state,
                Factor::A,
                &mut adapter.a,
                &adapter.grad_a,
            )?;
            let b = adamw(
                &hyper,
                control,
                state,
                Factor::B,
                &mut adapter.b,
                &adapter.grad_b,
            )?;
            report.grad_norm = [a.sqrt(), b.sqrt()].into();
            squares += a + b;
        }
        Ok(StepReport::new(control.lr_factor, squares.sqrt(), 1.0))
    }
}

/// One factor's step; returns |g|^2.
fn adamw(
    hyper: &Hyper,
    control: &Control,
    state: &mut State,
    factor: Factor,
    parameter: &mut MatMut<'_>,
    gradient: &MatRef<'_>,
) -> Result<f64, Error> {
    let ratio = if factor == Factor::B {
        hyper.lr_ratio
    } else {
        1.0
    };
    let lr = hyper.lr * control.lr_factor * ratio;
    let [c1, c2] = [hyper.beta1, hyper.beta2].map(|beta| 1.0 - beta.powf(state.step as f64));
    let mut moments = [Moment::First, Moment::Second].map(|moment| {
        let kind = StateKind::Factor(moment, factor);
        let host = state
            .buffer(kind)
            .ok()
            .and_then(|buffer| buffer.get::<HostTensor>());
        host.cloned().ok_or_else(|| foreign_buffer(NAME, kind))
    });
    let [Ok(first), Ok(second)] = &mut moments else {
        return Err(foreign_buffer(
            NAME,
            StateKind::Factor(Moment::First, factor),
        ));
    };
    let mut squares = 0.0;
    let [rows, cols] = parameter.shape();
    for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
        let g = gradient.get(i, j) * control.grad_scale;
        squares += g * g;
        let m = hyper.beta1 * first.view().get(i, j) + (1.0 - hyper.beta1) * g;
        let v = hyper.beta2 * second.view().get(i, j) + (1.0 - hyper.beta2) * g * g;
        first.view_mut().set(i, j, m);
        second.view_mut().set(i, j, v);
        let n = (m / c1) / ((v / c2).sqrt() + hyper.eps);
        let decayed = parameter.get(i, j) * (1.0 - lr * hyper.weight_decay);
        parameter.set(i, j, decayed - lr * n);
    }
    for (moment, host) in [Moment::First, Moment::Second].into_iter().zip(moments) {
        *state.buffer_mut(StateKind::Factor(moment, factor))? = Buffer::new(host?);
    }
    Ok(squares)
}

/// What was asked for runs, or an error.
fn check_options(slot: &AdapterSlot) -> Result<(), Error> {
    let h = &slot.hyper;
    if h.method != Method::Lora {
        return Err(unsupported(
            &slot.spec.subject(),
            &format!("method {}", h.method),
        ));
    }
    if h.amsgrad || h.maximize || h.decay_base || h.update_clip.is_some() {
        let what = "amsgrad, maximize, decay_base, update_clip";
        return Err(unsupported(&slot.spec.subject(), what));
    }
    Ok(())
}

fn unsupported(subject: &str, what: &str) -> Error {
    Error::Unsupported {
        subject: subject.into(),
        backend: NAME.into(),
        what: what.into(),
    }
}

pub(crate) fn main() -> Result<(), Error> {
    let config = lora_pro::Config::from(Hyper::default().method(Method::Lora));
    let optimizer = lora_pro::Optimizer::new(Plain, config)?;
    println!("{:#?}", optimizer.manifest());
    Ok(())
}
