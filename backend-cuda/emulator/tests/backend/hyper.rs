//! Hyper-parameters that change between two steps of the same tensors.

use lora_pro_core::{Damping, Hyper, Method, XChoice};
use lora_pro_cuda::Options;

use crate::common::{differing, name};
use crate::counting::counting;
use crate::deferred::parts;
use crate::model::TestModel;

const MODES: [Options; 2] = [Options { deferred: false }, Options { deferred: true }];

/// Everything that may change, the passes of the step included: a trust region comes, W0 decays no
/// more.
fn changed(hyper: Hyper) -> Hyper {
    let (momentum, weight_decay) = match hyper.method {
        Method::Sgd => (0.4, 0.0),
        _ => (0.0, 0.2),
    };
    hyper
        .lr(0.3 * hyper.lr)
        .beta1(0.5)
        .beta2(0.75)
        .eps(1e-3)
        .weight_decay(weight_decay)
        .momentum(momentum)
        .damping(Damping::Relative(0.1))
        .x(XChoice::Symmetric)
        .update_clip(Some(1e-3))
        .maximize(!hyper.maximize)
        .decay_base(false)
}

fn set(model: &mut TestModel, change: fn(Hyper) -> Hyper) {
    for part in parts() {
        let set = model
            .optimizer
            .set_hyper(Some(&name(&part.spec)), change(part.hyper));
        set.expect("valid");
    }
}

/// Two steps each with the first, the changed and again the first hyper-parameters. With `resumed`
/// every change meets a backend that has not stepped yet.
fn steps(options: Options, resumed: bool) -> TestModel {
    let mut model = TestModel::start(&counting(0), options, &parts());
    let changes: [fn(Hyper) -> Hyper; 3] = [|hyper| hyper, changed, |hyper| hyper];
    for (k, change) in changes.into_iter().enumerate() {
        if resumed {
            model = model.resumed(options);
        }
        set(&mut model, change);
        for t in 1..=2 {
            model.step(2 * k as u64 + t).expect("a step");
        }
    }
    model.optimizer.sync().expect("all is well");
    model
}

#[test]
fn changed_hyper_parameters_take_effect_in_the_next_step() {
    for options in MODES {
        let differ = differing(&steps(options, false).bits(), &steps(options, true).bits());
        assert!(differ.is_empty(), "{options:?}: {differ:?}");
    }
}

#[test]
fn a_changed_learning_rate_and_factor_scale_the_same_step() {
    let step_with = |prepare: fn(&mut TestModel)| {
        let mut model = TestModel::start(&counting(0), Options::default(), &parts());
        model.step(1).expect("a step");
        prepare(&mut model);
        model.step(2).expect("a step");
        model.bits()
    };
    let by_factor = step_with(|model| model.optimizer.set_lr_factor(0.25).expect("valid"));
    let by_rate = step_with(|model| set(model, |hyper| hyper.lr(0.25 * hyper.lr)));
    let unchanged = step_with(|_| ());
    let differ = differing(&by_factor, &by_rate);
    assert!(differ.is_empty(), "{differ:?}");
    assert!(!differing(&by_factor, &unchanged).is_empty());
}
