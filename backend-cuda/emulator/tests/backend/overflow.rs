//! A step that numbers might overflow in: made where none does, taken back whole where one does.

use lora_pro_conformance::differential::{Case, compare};
use lora_pro_conformance::residual::holds;
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{Config, DType, Error, Hyper, Method};
use lora_pro_cuda::Options;

use crate::common::layout::{LAYOUTS, Layout};
use crate::common::{METHODS, adapter, cuda, differing, hyper, name};
use crate::counting::{Counting, counting};
use crate::model::{Part, TestModel, config, settings};

/// A learning rate whose first step might leave f16, which ends at 65504, and does not.
fn long(method: Method) -> f64 {
    match method {
        // N is about 1, and known to be no larger than 10.
        Method::Lora | Method::Efficient => 1e4,
        Method::Sgd => 2e4,
        // What is known of (dA, dB) is far more than what they are.
        Method::Factored | Method::Full => 1.0,
    }
}

/// One at which it does.
const TOO_LONG: f64 = 1e6;

fn with_rate(hyper: Hyper, lr: f64) -> Hyper {
    hyper.lr(lr).weight_decay(0.0)
}

fn has_tried(device: &Counting) -> bool {
    device.hook().asked().launches.contains(&"back_up")
}

/// As the reference's, and as if no overflow had been possible.
#[test]
fn made_where_nothing_overflows() {
    for method in METHODS {
        let hyper = with_rate(hyper(method), long(method)).decay_base(true);
        let spec = CaseSpec {
            size_a: 30.0,
            ..adapter(40, 50, 3, DType::F16)
        };
        let part = Part {
            spec,
            hyper,
            unpaired: true,
        };
        let device = counting(0);
        let mut model = TestModel::start(&device, Options::default(), &[part]);
        device.hook().asked();
        model
            .step(1)
            .unwrap_or_else(|error| panic!("{method}: {error}"));
        assert!(has_tried(&device), "{method}: no overflow was expected");
        assert_eq!(model.optimizer.adapters()[0].state.step, 1);
        let case = Case {
            adapter: spec,
            config: Config::from(hyper),
            grad_scale: 1.0,
            steps: 1,
            unpaired: true,
        };
        let finding = compare(&cuda, &case).expect("a comparison");
        assert!(
            finding.compared == 1 && holds(finding.ratio),
            "{method}: {finding:?}"
        );
    }
}

/// Company of every setting in strided memory, in which one adapter leaves its storage type.
#[test]
fn taken_back_where_something_overflows() {
    let part = |(k, (dtype, hyper)): (usize, (DType, Hyper))| Part {
        spec: CaseSpec {
            seed: k as u64,
            ..adapter(14 + k % 3, 70, 3, dtype)
        },
        hyper: hyper.decay_base(true),
        unpaired: true,
    };
    let ordinary: Vec<_> = settings().into_iter().enumerate().map(part).collect();
    let taken: Vec<_> = LAYOUTS.into_iter().filter(|x| !x.is_misaligned()).collect();
    for method in METHODS {
        let overflowing = ordinary.len() / 2;
        let mut parts = ordinary.clone();
        parts[overflowing] = Part {
            spec: CaseSpec {
                dtype: DType::F16,
                ..parts[overflowing].spec
            },
            hyper: with_rate(hyper(method), TOO_LONG),
            unpaired: false,
        };
        let all: Vec<_> = (0..parts.len()).collect();
        let others: Vec<_> = all.iter().copied().filter(|k| *k != overflowing).collect();
        let start = |layout: Layout| {
            let device = counting(0);
            let lay = |_: &'static str| layout;
            TestModel::with(&device, Options::default(), &parts, config(&parts), &lay)
                .expect("valid")
        };
        let mut model = start(taken[1 + overflowing % (taken.len() - 1)]);
        model.step_of(&others, 1).expect("a step");
        let before = model.bits();
        model.set_gradients(&all, 2);
        model.device.hook().asked();
        let error = model.step_current(&all).expect_err("an overflow");
        assert!(
            has_tried(&model.device),
            "{method}: no overflow was expected"
        );
        match error {
            Error::NonFinite { subject, .. } => {
                assert!(
                    subject.contains(&name(&parts[overflowing].spec)),
                    "{method}: {subject}"
                );
            }
            other => panic!("{method}: {other}"),
        }
        let differ = differing(&model.bits(), &before);
        assert!(differ.is_empty(), "{method}: {differ:?} changed");
        model.step_of(&others, 2).expect("nothing is left of it");
        let mut straight = start(Layout::Rows);
        straight.step_of(&others, 1).expect("a step");
        straight.step_of(&others, 2).expect("a step");
        // The overflowing adapter's gradients are no part of the bits.
        let differ = differing(&model.bits(), &straight.bits());
        assert!(differ.is_empty(), "{method}: {differ:?}");
    }
}
