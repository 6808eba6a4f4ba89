//! The examples run, and the backend of one's own steps as the reference does.

#[path = "../examples/mixed_model.rs"]
mod mixed_model;
#[path = "../examples/one_adapter.rs"]
mod one_adapter;
#[path = "../examples/own_backend.rs"]
mod own_backend;
#[path = "../examples/resume.rs"]
mod resume;

use lora_pro::{
    AdapterIo, AdapterSpec, Backend, Config, DType, HostTensor, Hyper, Method, Optimizer,
};
use lora_pro_reference::ReferenceBackend;

#[test]
fn they_run() {
    one_adapter::main().unwrap();
    mixed_model::main().unwrap();
    resume::main().unwrap();
    own_backend::main().unwrap();
}

fn numbers(shape: [usize; 2], shift: usize) -> HostTensor {
    let entry = |i: usize, j: usize| ((3 * i + 5 * j + shift) % 7) as f64 / 7.0 - 0.4;
    HostTensor::from_fn(DType::F64, shape, entry)
}

/// A and B after three steps.
fn factors(backend: impl Backend + 'static) -> [HostTensor; 2] {
    let hyper = Hyper::default().method(Method::Lora).lr(0.1);
    let config = Config::from(hyper.lr_ratio(16.0).weight_decay(0.01));
    let mut optimizer = Optimizer::new(backend, config).unwrap();
    optimizer.set_grad_scale(0.5).unwrap();
    let spec = AdapterSpec::new("q", 4, 3, 2).dtype(DType::F64);
    let id = optimizer.add_adapter(spec).unwrap();
    let [mut a, mut b] = [numbers([2, 3], 0), numbers([4, 2], 1)];
    for step in 0..3 {
        let [grad_a, grad_b] = [numbers([2, 3], step), numbers([4, 2], step + 3)];
        let (a, b) = (a.view_mut(), b.view_mut());
        let io = AdapterIo::new(id, a, b, grad_a.view(), grad_b.view());
        optimizer.step(&mut [io]).unwrap();
    }
    [a, b]
}

#[test]
fn a_backend_of_ones_own_steps_as_the_reference() {
    let (own, reference) = (
        factors(own_backend::Plain),
        factors(ReferenceBackend::new()),
    );
    for (own, reference) in own.iter().zip(&reference) {
        let [rows, cols] = own.shape();
        for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
            let error = own.view().get(i, j) - reference.view().get(i, j);
            assert!(error.abs() < 1e-14, "({i}, {j}): {error}");
        }
    }
}

#[test]
fn what_it_does_not_do_it_rejects() {
    let mut optimizer = Optimizer::new(own_backend::Plain, Config::default()).unwrap();
    let id = optimizer
        .add_adapter(AdapterSpec::new("q", 4, 3, 2))
        .unwrap();
    let [mut a, mut b] = [[2, 3], [4, 2]].map(|shape| HostTensor::zeros(DType::F32, shape));
    let (grad_a, grad_b) = (a.clone(), b.clone());
    let (a, b) = (a.view_mut(), b.view_mut());
    let io = AdapterIo::new(id, a, b, grad_a.view(), grad_b.view());
    let error = optimizer.step(&mut [io]).unwrap_err().to_string();
    let expected = "adapter `q`: the plain backend does not support method factored";
    assert_eq!(error, expected);
}
