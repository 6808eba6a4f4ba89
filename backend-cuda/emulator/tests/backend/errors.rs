//! What is refused: in words that name the adapter, and before anything is written.

use lora_pro_core::backend::{AdapterSlot, Control, Slots, State, StepIo, adapter_layout};
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterReport, AdapterSpec, Backend, DType, Error, Method, MomentDType,
    OnNonFinite, Scale,
};
use lora_pro_cuda::{CudaBackend, MAX_RANK, Options};

use crate::common::layout::{LAYOUTS, Layout};
use crate::common::{adapter, differing, hyper, name, reference};
use crate::counting::{checked, counting};
use crate::model::{Lay, Part, TestModel, config};

/// A ordinary adapter and one that is refused.
fn refused(part: Part, lay: Lay, says: &[&str]) {
    let ordinary = Part {
        spec: adapter(9, 10, 2, DType::F32),
        hyper: hyper(Method::Full),
        unpaired: true,
    };
    let parts = [ordinary, part];
    let device = checked(0);
    let options = Options::default();
    let mut model = TestModel::with(&device, options, &[ordinary], config(&parts), &|_| {
        Layout::Rows
    })
    .expect("valid");
    model.add(part, lay).expect("valid");
    model.step_of(&[0], 1).expect("a step");
    let before = model.bits();
    let text = match model.step_of(&[0, 1], 2) {
        Err(error @ Error::Unsupported { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(text.contains(&name(&part.spec)), "{text}");
    for word in says {
        assert!(text.contains(word), "{word}: {text}");
    }
    let differ = differing(&model.bits(), &before);
    assert!(differ.is_empty(), "{differ:?}");
    model.step_of(&[0], 2).expect("the other goes on");
}

#[test]
fn a_rank_that_no_tile_holds() {
    let rank = MAX_RANK + 1;
    for method in [Method::Efficient, Method::Full] {
        let part = Part {
            spec: adapter(rank, rank + 3, rank, DType::F32),
            hyper: hyper(method),
            unpaired: false,
        };
        let number = rank.to_string();
        refused(part, &|_| Layout::Rows, &["rank", &number, "256"]);
    }
}

#[test]
fn short_moments_of_long_parameters() {
    let part = Part {
        spec: adapter(20, 30, 3, DType::F64),
        hyper: hyper(Method::Full).moment_dtype(MomentDType::EightBit),
        unpaired: false,
    };
    refused(part, &|_| Layout::Rows, &["8-bit moments"]);
}

/// A number at an odd address cannot be read by a GPU.
#[test]
fn addresses_that_are_not_aligned() {
    let tensors = ["A", "B", "grad A", "grad B", "W0", "value", "grad"];
    for dtype in DType::PARAMETERS {
        for tensor in tensors {
            for layout in LAYOUTS.into_iter().filter(|x| x.is_misaligned()) {
                let part = Part {
                    spec: adapter(20, 30, 3, dtype),
                    hyper: hyper(Method::Efficient).decay_base(true),
                    unpaired: true,
                };
                let lay = |name| if name == tensor { layout } else { Layout::Rows };
                refused(
                    part,
                    &lay,
                    &[&format!("{tensor} at the address 0x"), "aligned"],
                );
            }
        }
    }
}

/// A slot whose state another backend has allocated.
#[test]
fn state_of_another_backend() {
    let case = adapter(9, 10, 2, DType::F32);
    let part = Part {
        spec: case,
        hyper: hyper(Method::Efficient),
        unpaired: false,
    };
    let device = counting(0);
    let mut model = TestModel::start(&device, Options::default(), &[part]);
    let before = model.bits();
    let spec = AdapterSpec::new("layers.0.q", case.m, case.n, case.r)
        .scale(Scale::Explicit(case.s))
        .dtype(case.dtype);
    let mut other = reference();
    let layout = adapter_layout(&spec, &part.hyper).into_iter();
    let tensors = layout.map(|tensor| (tensor, other.allocate(&tensor).expect("memory")));
    let mut slot = AdapterSlot {
        state: State {
            step: 0,
            tensors: tensors.collect(),
        },
        spec,
        hyper: part.hyper,
        report: AdapterReport::default(),
    };
    let slots = Slots {
        adapters: std::slice::from_mut(&mut slot),
        params: &mut [],
    };
    let mut tensors = std::mem::take(&mut model.members[0].tensors);
    let mut take = |name| tensors.remove(name).expect("there is one");
    let [mut a, mut b, grad_a, grad_b] = ["A", "B", "grad A", "grad B"].map(&mut take);
    let adapter = AdapterIo::new(
        AdapterId::from_index(0),
        a.view_mut(),
        b.view_mut(),
        grad_a.view(),
        grad_b.view(),
    );
    let io = StepIo {
        adapters: &mut [adapter],
        params: &mut [],
    };
    let control = Control {
        lr_factor: 1.0,
        grad_scale: 1.0,
        max_grad_norm: None,
        on_non_finite: OnNonFinite::Error,
        stream: 0,
    };
    let mut backend = CudaBackend::on(device.clone(), Options::default());
    let text = match backend.step(slots, io, &control) {
        Err(error @ Error::Backend { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(
        text.contains("layers.0.q") && text.contains("exp_avg_a"),
        "{text}"
    );
    assert_eq!(slot.state.step, 0);
    for (name, tensor) in [("A", a), ("B", b), ("grad A", grad_a), ("grad B", grad_b)] {
        tensors.insert(name, tensor);
    }
    model.members[0].tensors = tensors;
    let differ = differing(&model.bits(), &before);
    assert!(differ.is_empty(), "{differ:?}");
}
