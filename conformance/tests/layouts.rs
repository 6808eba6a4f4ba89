//! Where and how a tensor lies in memory changes nothing: the same bits for every layout, nothing
//! written beside the elements, nothing written to what is only read.

mod common;

use common::layout::{LAYOUTS, Layout, StridedBuffer};
use common::{BackendFn, METHODS, adapter, cpu, hyper, reference};
use lora_pro_conformance::sample::{CaseSpec, uniform};
use lora_pro_core::{
    AdapterIo, AdapterSpec, DType, HostTensor, Location, MatMut, MatRef, Method, Optimizer,
    ParamIo, ParamSpec, Scale,
};
use lora_pro_reference::factors::Factors;
use lora_pro_reference::storage::{host, matrix};

/// Steps of a trajectory.
const STEPS: u64 = 3;

/// A, B, W0 and the parameter at the end, for tensors laid out in turn as in `layouts`.
fn run(make: BackendFn, spec: &CaseSpec, method: Method, layouts: &[Layout]) -> Vec<HostTensor> {
    let mut turn = layouts.iter().cycle();
    let mut lay = |tensor: &HostTensor| StridedBuffer::new(tensor, *turn.next().expect("cycles"));
    let hyper = hyper(method).decay_base(true);
    let mut optimizer = Optimizer::new(make(), hyper.into()).expect("valid");
    let (id, param_id) = register(&mut optimizer, spec);
    let start = spec.factors();
    let stored = |values: &nalgebra::DMatrix<f64>| host(values, spec.dtype);
    let mut random = spec.random(100);
    let mut a = lay(&stored(&start.a));
    let mut b = lay(&stored(&start.b));
    let mut base = lay(&stored(&uniform(&mut random, spec.m, spec.n)));
    let mut param = lay(&stored(&uniform(&mut random, spec.n, spec.r)));
    for t in 1..=STEPS {
        let factors = Factors {
            b: matrix(&b.view()),
            a: matrix(&a.view()),
            s: spec.s,
        };
        let pair = spec.gradients(&factors, t);
        let grad_a = lay(&stored(&pair.a));
        let grad_b = lay(&stored(&pair.b));
        let grad = lay(&stored(&uniform(&mut random, spec.n, spec.r)));
        let before = [grad_a.clone(), grad_b.clone(), grad.clone()];
        let io = AdapterIo::new(id, a.view_mut(), b.view_mut(), grad_a.view(), grad_b.view())
            .w0(Some(base.view_mut()));
        let param_io = ParamIo::new(param_id, param.view_mut(), grad.view());
        optimizer
            .step_with_params(&mut [io], &mut [param_io])
            .expect("a step");
        assert_eq!(before, [grad_a, grad_b, grad], "gradients are only read");
    }
    let all = [a, b, base, param];
    assert!(all.iter().all(StridedBuffer::guards_intact), "{layouts:?}");
    all.iter().map(StridedBuffer::tensor).collect()
}

fn register(
    optimizer: &mut Optimizer,
    spec: &CaseSpec,
) -> (lora_pro_core::AdapterId, lora_pro_core::ParamId) {
    let adapter = AdapterSpec::new("adapter", spec.m, spec.n, spec.r)
        .scale(Scale::Explicit(spec.s))
        .dtype(spec.dtype);
    let param = ParamSpec::new("param", spec.n, spec.r).dtype(spec.dtype);
    let id = optimizer.add_adapter(adapter).expect("valid");
    (id, optimizer.add_param(param).expect("valid"))
}

fn every_layout(make: BackendFn, shapes: &[(usize, usize, usize)]) {
    for &(m, n, r) in shapes {
        for dtype in DType::PARAMETERS {
            for method in METHODS {
                let spec = adapter(m, n, r, dtype);
                let expected = run(make, &spec, method, &[Layout::Rows]);
                let together = LAYOUTS.iter().map(|layout| vec![*layout]);
                // Seven tensors a step against ten layouts: each tensor meets many.
                for layouts in together.chain([LAYOUTS.to_vec()]) {
                    let found = run(make, &spec, method, &layouts);
                    assert!(
                        found == expected,
                        "{method} {dtype} {m}x{n}x{r} {layouts:?}"
                    );
                }
            }
        }
    }
}

/// Shapes around the tiles; the last one is large enough to be cut.
const SHAPES: [(usize, usize, usize); 5] =
    [(1, 1, 1), (7, 65, 3), (13, 5, 5), (1, 130, 1), (90, 70, 4)];

#[test]
fn reference_takes_every_layout() {
    every_layout(&reference, &SHAPES[..3]);
}

#[test]
fn cpu_takes_every_layout() {
    every_layout(&cpu, &SHAPES);
}

/// A and its gradient element by element in turn, as views of one complex tensor are.
fn interleaved(make: BackendFn, method: Method) {
    let spec = adapter(9, 70, 3, DType::F32);
    let start = spec.factors();
    let pair = spec.gradients(&start, 1);
    let (grad_a, grad_b) = (host(&pair.a, spec.dtype), host(&pair.b, spec.dtype));
    let mut expected = (host(&start.a, spec.dtype), host(&start.b, spec.dtype));
    let mut optimizer = Optimizer::new(make(), hyper(method).into()).expect("valid");
    let (id, _) = register(&mut optimizer, &spec);
    let io = AdapterIo::new(
        id,
        expected.0.view_mut(),
        expected.1.view_mut(),
        grad_a.view(),
        grad_b.view(),
    );
    optimizer.step(&mut [io]).expect("a step");

    let shape = [spec.r, spec.n];
    let mut both: Vec<f32> = (0..spec.r * spec.n)
        .flat_map(|k| {
            let at = (k / spec.n, k % spec.n);
            [start.a[at] as f32, pair.a[at] as f32]
        })
        .collect();
    let mut b = host(&start.b, spec.dtype);
    let mut optimizer = Optimizer::new(make(), hyper(method).into()).expect("valid");
    let (id, _) = register(&mut optimizer, &spec);
    let strides = [2 * spec.n as isize, 2];
    let ptr = both.as_mut_ptr().cast::<u8>();
    // SAFETY: A's elements are the even ones of `both`, the gradient's the odd ones; neither view
    // reaches the other's, and `both` is not touched while they live.
    let io = unsafe {
        AdapterIo::new(
            id,
            MatMut::from_raw(ptr, shape, strides, DType::F32, Location::Host),
            b.view_mut(),
            MatRef::from_raw(ptr.add(4), shape, strides, DType::F32, Location::Host),
            grad_b.view(),
        )
    };
    optimizer.step(&mut [io]).expect("a step");
    assert_eq!(b, expected.1, "{method}");
    for k in 0..spec.r * spec.n {
        let (i, j) = (k / spec.n, k % spec.n);
        assert_eq!(
            f64::from(both[2 * k]),
            expected.0.view().get(i, j),
            "{method}"
        );
        assert_eq!(
            f64::from(both[2 * k + 1]),
            grad_a.view().get(i, j),
            "{method}"
        );
    }
}

#[test]
fn interleaved_tensors() {
    for method in METHODS {
        interleaved(&reference, method);
    }
}

#[test]
fn interleaved_tensors_on_the_cpu_backend() {
    for method in METHODS {
        interleaved(&cpu, method);
    }
}
