//! What changes between replays of a captured step: the test device does at once what others record.

use lora_pro_core::{Error, Schedule};
use lora_pro_cuda::Options;

use crate::common::differing;
use crate::common::layout::Layout;
use crate::counting::counting;
use crate::deferred::parts;
use crate::model::{TestModel, config};

/// With half the learning rate in the first step, and all of it in the second.
fn warming() -> TestModel {
    let (parts, options) = (parts(), Options { deferred: true });
    let config = config(&parts).schedule(Schedule::Linear {
        warmup: 2,
        total: 9,
    });
    let rows = |_| Layout::Rows;
    TestModel::with(&counting(0), options, &parts, config, &rows).expect("valid")
}

#[test]
fn captured_steps_have_the_factors_that_were_set_between_them() {
    let mut ordinary = warming();
    ordinary.step(1).expect("a step");
    ordinary.optimizer.set_grad_scale(0.25).expect("valid");
    ordinary.step(2).expect("a step");

    let mut captured = warming();
    captured.step(1).expect("a step");
    captured.graph_parameters.set(0, 1.0, 0.25).expect("valid");
    captured.set_gradients(&captured.all(), 2);
    captured.device.hook().set_capturing(true);
    captured.step_current(&captured.all()).expect("a step");
    captured.device.hook().set_capturing(false);

    for model in [&mut ordinary, &mut captured] {
        model.optimizer.sync().expect("all is well");
    }
    let differ = differing(&ordinary.bits(), &captured.bits());
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn factors_that_no_step_would_take_are_rejected() {
    let mut model = warming();
    let early = model.graph_parameters.set(0, 1.0, 1.0);
    assert!(matches!(early, Err(Error::Backend { .. })), "{early:?}");
    model.step(1).expect("a step");
    for (lr_factor, grad_scale) in [
        (-1.0, 1.0),
        (f64::NAN, 1.0),
        (1.0, 0.0),
        (1.0, f64::INFINITY),
    ] {
        let said = model.graph_parameters.set(0, lr_factor, grad_scale);
        assert!(matches!(said, Err(Error::Invalid { .. })), "{said:?}");
    }
    // Graph parameters that outlive their backend write to memory of its own.
    let graph_parameters = model.graph_parameters.clone();
    drop(model);
    graph_parameters.set(0, 0.5, 1.0).expect("valid");
}
