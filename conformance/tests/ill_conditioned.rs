//! Factors that lack a rank but for the rounding of f16, with gradients that leave their spaces, as rounding
//! makes a backward pass do: a step in f32 is near to the reference's, which computes in f64.

mod common;

use common::{BackendFn, cpu, cuda};
use lora_pro_core::{AdapterIo, AdapterSpec, Config, DType, Damping, Hyper, MatMut, MatRef};
use lora_pro_core::{Backend, Method, Optimizer, Scale};
use lora_pro_reference::ReferenceBackend;

const SHAPE: (usize, usize, usize) = (9, 70, 3); // m, n, r

/// sin(3 i + 5 j + phase) has rank 2 in any shape; f16's rounding gives it a third.
fn waves(rows: usize, cols: usize, size: f64, phase: f64) -> Vec<f32> {
    let entry = |k: usize| size * ((3 * (k / cols) + 5 * (k % cols)) as f64 + phase).sin();
    (0..rows * cols)
        .map(|k| half::f16::from_f64(entry(k)).to_f32())
        .collect()
}

/// A and B after the first step from gradients that no g has: gA leaves the column space of B'.
fn stepped(
    backend: Box<dyn Backend>,
    method: Method,
    damping: Damping,
    phase: f64,
) -> [Vec<f32>; 2] {
    let (m, n, r) = SHAPE;
    let hyper = Hyper::default().method(method).lr(1e-2).damping(damping);
    let mut config = Config::default();
    config.hyper = hyper;
    let mut optimizer = Optimizer::new(backend, config).unwrap();
    let spec = AdapterSpec::new("q", m, n, r).scale(Scale::Explicit(0.5));
    let id = optimizer.add_adapter(spec.dtype(DType::F32)).unwrap();
    let (mut a, mut b) = (waves(r, n, 0.5, phase), waves(m, r, 0.1, phase + 1.0));
    let (ga, gb) = (waves(r, n, 0.1, phase + 2.0), waves(m, r, 0.1, phase + 3.0));
    let io = AdapterIo::new(
        id,
        MatMut::new(&mut a, [r, n]).unwrap(),
        MatMut::new(&mut b, [m, r]).unwrap(),
        MatRef::new(&ga, [r, n]).unwrap(),
        MatRef::new(&gb, [m, r]).unwrap(),
    );
    optimizer.step(&mut [io]).unwrap();
    [a, b]
}

fn distance(x: &[f32], y: &[f32]) -> f32 {
    let norm = |z: &mut dyn Iterator<Item = f32>| z.map(|z| z * z).sum::<f32>().sqrt();
    norm(&mut x.iter().zip(y).map(|(x, y)| x - y)) / norm(&mut y.iter().copied())
}

fn is_near(make: BackendFn) {
    for method in [Method::Factored, Method::Full, Method::Sgd] {
        for phase in [1.0, 2.0, 3.0] {
            // The Gram matrices have condition numbers of about 1e7, so f32 keeps no more digits.
            for (damping, bound) in [(Damping::Relative(1e-4), 1e-2), (Damping::None, 0.2)] {
                let expected = stepped(Box::new(ReferenceBackend::new()), method, damping, phase);
                let found = stepped(make(), method, damping, phase);
                for (x, y) in found.iter().zip(&expected) {
                    let distance = distance(x, y);
                    assert!(distance < bound, "{method} {damping:?} {phase}: {distance}");
                }
            }
        }
    }
}

#[test]
fn the_cpu_backend_is_near_to_the_reference() {
    is_near(&cpu);
}

#[test]
fn the_cuda_backend_is_near_to_the_reference() {
    is_near(&cuda);
}
