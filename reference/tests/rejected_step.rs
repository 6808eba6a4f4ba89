//! A step that cannot be stored is rejected as a whole: whatever was computed before stays unwritten.

use lora_pro_core::backend::{Factor, Moment, StateKind};
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Config, DType, Error, HostTensor, Method, Optimizer, Preset,
};
use lora_pro_reference::ReferenceBackend;

/// An adapter of shape 3 x 2 and rank 1 in f16, and its gradients.
struct Adapter {
    id: AdapterId,
    a: HostTensor,
    b: HostTensor,
    grad_a: HostTensor,
    grad_b: HostTensor,
}

impl Adapter {
    fn new(optimizer: &mut Optimizer, name: &str, b: f64) -> Result<Self, Error> {
        let spec = AdapterSpec::new(name, 3, 2, 1).dtype(DType::F16);
        let all = |shape, x| HostTensor::from_fn(DType::F16, shape, |_, _| x);
        Ok(Adapter {
            a: all(spec.a_shape(), 1.0),
            b: all(spec.b_shape(), b),
            grad_a: all(spec.a_shape(), 1.0),
            grad_b: all(spec.b_shape(), -1.0),
            id: optimizer.add_adapter(spec)?,
        })
    }

    fn io(&mut self) -> AdapterIo<'_> {
        let (a, b) = (self.a.view_mut(), self.b.view_mut());
        AdapterIo::new(self.id, a, b, self.grad_a.view(), self.grad_b.view())
    }
}

#[test]
fn adapters_before_the_one_that_overflows_stay_as_they_were() -> Result<(), Error> {
    let hyper = Preset::Paper.hyper().method(Method::Lora).lr(32.0);
    let mut optimizer = Optimizer::new(ReferenceBackend::new(), Config::from(hyper))?;
    let mut first = Adapter::new(&mut optimizer, "first", 0.0)?;
    // One step leads to the largest number of f16, 65504. The next one is beyond it.
    let mut second = Adapter::new(&mut optimizer, "second", 65472.0)?;
    optimizer.step(&mut [first.io(), second.io()])?;

    let state = |optimizer: &Optimizer, id| {
        let kind = StateKind::Factor(Moment::First, Factor::B);
        let adapter = optimizer.adapter(id)?;
        let moments = optimizer.adapter_state(id, kind)?;
        Ok::<_, Error>((adapter.state.step, adapter.report, moments.bytes))
    };
    let before = (
        first.a.clone(),
        first.b.clone(),
        state(&optimizer, first.id)?,
    );
    let error = optimizer.step(&mut [first.io(), second.io()]);
    assert!(
        matches!(&error, Err(Error::NonFinite { subject, .. }) if subject.contains("second")),
        "{error:?}"
    );
    let after = (
        first.a.clone(),
        first.b.clone(),
        state(&optimizer, first.id)?,
    );
    assert_eq!(before, after);
    Ok(())
}
