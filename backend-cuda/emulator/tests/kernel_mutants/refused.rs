//! Steps that cannot be made: nothing has changed after them, and the next one is as if they had
//! not been.

use lora_pro_core::{Backend, Config, DType, Method};
use lora_pro_cuda::Options;
use lora_pro_cuda_emulator::{Checks, ORDER, test_device};

use crate::battery::{cuda, next};
use crate::common::{BackendFn, Batch, METHODS, adapter, differing, hyper, name, reference};
use crate::device::Scattered;

/// Types that a learning rate of today's numbers leaves.
const SHORT: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// The factors of one adapter leave their type; all of the step is taken back.
pub fn overflow() {
    for (method, dtype) in METHODS.into_iter().zip(SHORT.into_iter().cycle()) {
        next(&format!("{method} overflows in {dtype}"));
        let overflowing = hyper(method)
            .lr(if dtype == DType::F16 { 1e6 } else { 1e41 })
            .weight_decay(0.0);
        let config = Config::from(hyper(method)).group("overflowing", overflowing);
        let specs = [adapter(13, 600, 9, dtype), adapter(7, 11, 3, dtype)];
        let group = |k: usize| (k == 1).then(|| "overflowing".to_string());
        let mut batch = Batch::grouped(&cuda, &specs, config, group).expect("valid");
        let gradients = batch.gradients(1);
        let before = batch.bits().expect("saves");
        let error = batch.step_with(&gradients).expect_err("it overflows");
        assert!(error.to_string().contains(&name(&specs[1])), "{error}");
        let differ = differing(&before, &batch.bits().expect("saves"));
        assert!(differ.is_empty(), "{method} {dtype}: {differ:?} changed");
    }
}

/// One step with a broken factor or gradient; what is said about it.
fn refusal(make: BackendFn, of_gradient: bool) -> String {
    let specs = [adapter(13, 30, 3, DType::F32)];
    let mut batch = Batch::start(make, &specs, hyper(Method::Lora)).expect("valid");
    let good = batch.gradients(1);
    let (kept, mut gradients) = (batch.run.adapters[0].clone(), good.clone());
    let broken = if of_gradient {
        &mut gradients[0].1
    } else {
        &mut batch.run.adapters[0].b
    };
    broken.view_mut().set(12, 2, f64::INFINITY);
    let before = batch.bits().expect("saves");
    let error = batch.step_with(&gradients).expect_err("it is broken");
    let differ = differing(&before, &batch.bits().expect("saves"));
    assert!(differ.is_empty(), "{differ:?} changed");
    batch.run.adapters[0] = kept;
    batch.step_with(&good).expect("nothing is left of it");
    error.to_string()
}

/// Something is not finite to begin with: nothing changes, and the same is said as by the reference.
pub fn broken() {
    for of_gradient in [false, true] {
        next("a factor or a gradient is broken");
        assert_eq!(
            refusal(&cuda, of_gradient),
            refusal(&reference, of_gradient)
        );
    }
}

fn deferred() -> Box<dyn Backend> {
    let device = test_device(Checks::Off, ORDER).unwrap_or_else(|error| panic!("{error}"));
    Box::new(Scattered::new(device, Options { deferred: true }, 0))
}

/// A deferred backend counts refused steps until `sync`.
pub fn unasked() {
    next("refused steps of a deferred backend");
    let specs = [adapter(13, 30, 3, DType::F32)];
    let hyper = hyper(Method::Efficient);
    let mut batch = Batch::start(&deferred, &specs, hyper).expect("valid");
    let mut straight = Batch::start(&cuda, &specs, hyper).expect("valid");
    let good = batch.gradients(1);
    let mut broken = good.clone();
    broken[0].0.view_mut().set(1, 2, f64::INFINITY);
    for gradients in [&good, &broken, &broken, &good] {
        batch.step_with(gradients).expect("a deferred step");
    }
    for _ in 0..2 {
        straight.step_with(&good).expect("a step");
    }
    let error = batch
        .run
        .optimizer
        .sync()
        .expect_err("two are lost")
        .to_string();
    assert!(error.contains("2 step(s)"), "{error}");
    batch
        .run
        .optimizer
        .sync()
        .expect("nothing is lost any more");
    let differ = differing(
        &batch.bits().expect("saves"),
        &straight.bits().expect("saves"),
    );
    assert!(differ.is_empty(), "{differ:?}");
}
