//! The same bits whatever the company, the order and the history of the sets; a few launches for any
//! number of adapters.

use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{DType, Hyper, Method};
use lora_pro_cuda::Options;

use crate::common::{Bits, METHODS, adapter, differing, hyper};
use crate::counting::counting;
use crate::model::{Part, TestModel, settings};

/// One adapter of each setting, of many shapes and ranks; some of several chunks, strips and groups.
fn parts() -> Vec<Part> {
    const SHAPES: [(usize, usize, usize); 7] = [
        (3, 2, 1),
        (65, 129, 5),
        (7, 200, 2),
        (64, 9, 9),
        (90, 70, 33),
        (20, 600, 8),
        (530, 270, 4),
    ];
    let part = |(k, (dtype, hyper)): (usize, (DType, Hyper))| {
        let (m, n, r) = SHAPES[k % SHAPES.len()];
        Part {
            spec: CaseSpec {
                seed: k as u64,
                ..adapter(m, n, r, dtype)
            },
            hyper: hyper
                .decay_base(k % 2 == 0)
                .update_clip((k % 4 == 1).then_some(1e-3)),
            unpaired: k % 3 == 0,
        }
    };
    settings().into_iter().enumerate().map(part).collect()
}

/// Which members are stepped in which order, step by step.
type Sets = [Vec<usize>];

fn run(order: i32, parts: &[Part], sets: &Sets) -> Bits {
    let device = counting(order);
    let mut model = TestModel::start(&device, Options::default(), parts);
    // The front rejects a step of nothing.
    let sets = sets
        .iter()
        .enumerate()
        .filter(|(_, which)| !which.is_empty());
    for (t, which) in sets {
        model.step_of(which, t as u64 + 1).expect("a step");
    }
    model.bits()
}

fn assert_same(found: &Bits, expected: &Bits, what: &str) {
    let differ = differing(found, expected);
    assert!(differ.is_empty(), "{what}: {differ:?}");
}

fn all(parts: &[Part]) -> Vec<usize> {
    (0..parts.len()).collect()
}

#[test]
fn any_order_of_threads_and_a_second_run() {
    let parts = parts();
    let sets = [all(&parts), all(&parts)];
    let expected = run(0, &parts, &sets);
    for order in 0..=5 {
        assert_same(
            &run(order, &parts, &sets),
            &expected,
            &format!("order {order}"),
        );
    }
}

/// Everything alone, stepped where it is listed in `sets`.
fn alone(parts: &[Part], sets: &Sets) -> Bits {
    let mut together = Bits::new();
    for (k, part) in parts.iter().enumerate() {
        let own = |which: &Vec<usize>| which.iter().filter(|i| **i == k).map(|_| 0).collect();
        let own: Vec<_> = sets.iter().map(own).collect();
        together.extend(run(0, &[*part], &own));
    }
    together
}

#[test]
fn any_company_and_any_history() {
    let mut parts = parts();
    let every = |step: usize, first: usize| (first..parts.len()).step_by(step).collect();
    let mut sets: [Vec<usize>; 6] = [
        all(&parts),
        every(2, 0),
        every(2, 1),
        every(5, 3),
        vec![4],
        all(&parts),
    ];
    let expected = alone(&parts, &sets);
    assert_same(&run(0, &parts, &sets), &expected, "together");
    sets.iter_mut().for_each(|which| which.reverse());
    assert_same(&run(0, &parts, &sets), &expected, "listed backwards");
    let last = parts.len() - 1;
    parts.reverse();
    sets.iter_mut().flatten().for_each(|k| *k = last - *k);
    assert_same(&run(0, &parts, &sets), &expected, "registered backwards");
}

/// Two adapters whose launches are the same and whose scratch memory is not.
#[test]
fn scratch_memory_of_another_adapter() {
    for dtype in [DType::F32, DType::F64] {
        for method in METHODS {
            let part = |m, n| Part {
                spec: adapter(m, n, 3, dtype),
                hyper: hyper(method),
                unpaired: false,
            };
            let parts = [part(77, 100), part(74, 90)];
            let sets = [vec![0], vec![1], vec![0], vec![1]];
            let expected = alone(&parts, &sets);
            assert_same(
                &run(0, &parts, &sets),
                &expected,
                &format!("{method} {dtype}"),
            );
        }
    }
}

/// The most launches of a step.
fn limit(method: Method) -> usize {
    match method {
        Method::Lora | Method::Sgd | Method::Efficient => 6,
        Method::Full => 10,
        Method::Factored => 11,
    }
}

#[test]
fn launches_do_not_grow_with_the_model() {
    for method in METHODS {
        let part = |k: u64| Part {
            spec: CaseSpec {
                seed: k,
                ..adapter(20 + k as usize, 30, 4, DType::F32)
            },
            hyper: hyper(method),
            unpaired: false,
        };
        let launches = |count: u64| {
            let device = counting(0);
            let parts: Vec<_> = (0..count).map(part).collect();
            let mut model = TestModel::start(&device, Options::default(), &parts);
            model.step(1).expect("a step");
            model.set_gradients(&model.all(), 2);
            let used = device.hook().in_use();
            device.hook().asked();
            model.step_current(&model.all()).expect("a step");
            let asked = device.hook().asked();
            assert_eq!(
                asked.others,
                ["read"],
                "{method}: the reports and nothing else"
            );
            assert_eq!(device.hook().in_use(), used, "{method}");
            asked.launches
        };
        let (one, many) = (launches(1), launches(9));
        assert_eq!(one, many, "{method}");
        assert!(one.len() <= limit(method), "{method}: {one:?}");
    }
}
