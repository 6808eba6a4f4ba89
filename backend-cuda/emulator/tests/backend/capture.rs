//! Steps that are recorded into a graph.

use std::path::Path;

use lora_pro_core::{Error, Optimizer};
use lora_pro_cuda::{CudaBackend, Options};

use crate::common::device_view::DeviceView;
use crate::common::layout::Layout;
use crate::common::{Bits, differing};
use crate::counting::counting;
use crate::deferred::parts;
use crate::model::TestModel;

const MODES: [Options; 2] = [Options { deferred: false }, Options { deferred: true }];

fn model(options: Options) -> TestModel {
    TestModel::start(&counting(0), options, &parts())
}

/// After two ordinary steps.
fn expected() -> Bits {
    let mut model = model(Options::default());
    model.step(1).expect("a step");
    model.step(2).expect("a step");
    model.bits()
}

fn captured<T>(model: &mut TestModel, work: impl FnOnce(&mut TestModel) -> T) -> T {
    model.device.hook().set_capturing(true);
    let outcome = work(model);
    model.device.hook().set_capturing(false);
    outcome
}

/// The test device does at once what others record.
#[test]
fn only_launches_are_recorded() {
    let expected = expected();
    for options in MODES {
        let mut model = model(options);
        model.step(1).expect("a step");
        model.set_gradients(&model.all(), 2);
        model.device.hook().asked();
        captured(&mut model, |model| model.step_current(&model.all())).expect("a step");
        let asked = model.device.hook().asked();
        assert!(
            !asked.launches.is_empty() && asked.others.is_empty(),
            "{asked:?}"
        );
        model.optimizer.sync().expect("all is well");
        let differ = differing(&model.bits(), &expected);
        assert!(differ.is_empty(), "{options:?}: {differ:?}");
    }
}

/// What would need more than launches is refused, and the step is possible afterwards.
fn refused(options: Options, change: impl FnOnce(&mut TestModel) -> Vec<usize>) {
    let mut model = model(options);
    model.step(1).expect("a step");
    model.optimizer.sync().expect("all is well");
    let reports = |model: &TestModel| -> Vec<_> {
        let slots = model.optimizer.adapters().iter();
        slots.map(|slot| slot.report).collect()
    };
    let before = model.bits();
    model.set_gradients(&model.all(), 2);
    let which = change(&mut model);
    let reported = reports(&model);
    let outcome = captured(&mut model, |model| model.step_current(&which));
    match outcome {
        Err(Error::Backend { reason, .. }) => {
            assert!(reason.contains("captured graph"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    model.optimizer.sync().expect("all is well");
    assert_eq!(reports(&model), reported, "{options:?}");
    let differ = differing(&model.bits(), &before);
    assert!(differ.is_empty(), "{options:?}: {differ:?}");
    model.step_current(&model.all()).expect("a step");
    let differ = differing(&model.bits(), &expected());
    assert!(differ.is_empty(), "{options:?}: {differ:?}");
}

#[test]
fn another_set_is_refused() {
    for options in MODES {
        refused(options, |_| vec![3, 1]);
    }
}

#[test]
fn other_addresses_are_refused() {
    for options in MODES {
        refused(options, |model| {
            let member = &mut model.members[2];
            let gradient = member.tensors["grad B"].home().tensor();
            let moved = DeviceView::new(model.device.clone(), &gradient, Layout::Columns);
            member.tensors.insert("grad B", moved);
            model.all()
        });
    }
}

#[test]
fn the_first_step_of_what_was_loaded_is_refused() {
    for options in MODES {
        refused(options, |model| {
            let file = model.saved();
            let backend = CudaBackend::on(model.device.clone(), options);
            let path = Path::new("checkpoint");
            let loaded = Optimizer::load_from(Box::new(backend), &file, path);
            model.optimizer = loaded.expect("loads");
            model.all()
        });
    }
}
