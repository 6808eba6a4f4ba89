//! Several adapters at once: each is stepped as it is alone, whatever the order of threads and the
//! layout, and all gradients have one norm.

use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{Config, DType, Method};

use crate::battery::{cuda, next};
use crate::common::{Batch, METHODS, adapter, differing, hyper, reference};

const STEPS: u64 = 2;

fn specs(dtype: DType) -> Vec<CaseSpec> {
    let shapes = [(5, 7, 2), (280, 290, 9), (64, 11, 3)];
    shapes.map(|(m, n, r)| adapter(m, n, r, dtype)).into()
}

/// The same bits again and again, and alone.
pub fn repeat() {
    for method in METHODS {
        next(&format!("{method} in a batch"));
        let hyper = hyper(method).update_clip(Some(1e-2));
        let specs = specs(DType::F32);
        let run = |specs: &[CaseSpec]| {
            let batch = Batch::start(&cuda, specs, hyper).expect("valid");
            batch.finish(STEPS).expect("steps")
        };
        let expected = run(&specs);
        for _ in 0..3 {
            let differ = differing(&expected, &run(&specs));
            assert!(differ.is_empty(), "{method}: {differ:?}");
        }
        let alone = specs.iter().flat_map(|spec| run(&[*spec])).collect();
        let differ = differing(&expected, &alone);
        assert!(differ.is_empty(), "{method} alone: {differ:?}");
    }
}

/// The norm of all gradients, and what follows from it.
pub fn norm() {
    next("the norm of all gradients");
    let config = Config::from(hyper(Method::Lora)).max_grad_norm(Some(1e-2));
    let [found, expected] = [&cuda as _, &reference as _].map(|make| {
        let mut batch = Batch::start(make, &specs(DType::F64), config.clone()).expect("valid");
        let report = batch.step(1).expect("a step");
        [report.grad_norm, report.grad_clip]
    });
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found / expected - 1.0).abs() < 1e-12,
            "{found} for {expected}"
        );
    }
}
