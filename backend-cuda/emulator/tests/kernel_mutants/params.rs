//! Unpaired parameters that have rows and columns, in more than one chunk.

use lora_pro_conformance::sample::{CaseSpec, uniform};
use lora_pro_core::{
    Backend, DType, HostTensor, Method, Optimizer, ParamIo, ParamSpec, Rounding, TensorFile,
};
use lora_pro_reference::storage::{host, matrix};

use crate::battery::{cuda, next};
use crate::common::{BackendFn, hyper, reference};

const ROWS: usize = 70;
/// Not a multiple of eight: rows of ours are longer than those that are handed in.
const COLS: usize = 67;
const STEPS: u64 = 3;

/// Two parameters, stepped together: their values and their state.
fn run(make: BackendFn, dtype: DType, rounding: Rounding) -> Vec<HostTensor> {
    let hyper = hyper(Method::Lora).rounding(rounding).maximize(true);
    let backend: Box<dyn Backend> = make();
    let mut optimizer = Optimizer::new(backend, hyper.into()).expect("valid");
    let shapes = [(3, 5), (ROWS, COLS)];
    let ids = shapes.map(|(rows, cols)| {
        let spec = ParamSpec::new(format!("{rows} by {cols}"), rows, cols).dtype(dtype);
        optimizer.add_param(spec).expect("valid")
    });
    let mut random = CaseSpec::default().random(7);
    let mut draw = |(rows, cols): (usize, usize)| host(&uniform(&mut random, rows, cols), dtype);
    let mut values = shapes.map(&mut draw);
    for _ in 0..STEPS {
        let grads = shapes.map(&mut draw);
        let mut params = Vec::new();
        for ((id, value), grad) in ids.iter().zip(&mut values).zip(&grads) {
            params.push(ParamIo::new(
                lora_pro_core::ParamId::from_index(id.index()),
                value.view_mut(),
                grad.view(),
            ));
        }
        optimizer
            .step_with_params(&mut [], &mut params)
            .expect("a step");
    }
    let mut file = TensorFile::new();
    optimizer.save_to(&mut file).expect("saves");
    let state = file.tensors.into_values().map(|data| {
        let shape = [data.shape[0], data.shape[1]];
        HostTensor::from_bytes(data.dtype, shape, data.bytes).expect("whole tensors")
    });
    values.into_iter().chain(state).collect()
}

/// AdamW of an entry is well-conditioned where its gradients are of one size: what rounding adds
/// is a few units in the last place of a number of order 1; master copies are such numbers in f32.
pub fn check() {
    for dtype in DType::PARAMETERS {
        let short = matches!(dtype, DType::Bf16 | DType::F16);
        let rounding = if short {
            Rounding::MasterCopy
        } else {
            Rounding::Nearest
        };
        next(&format!("parameters in {dtype}"));
        let [found, expected] =
            [&cuda as _, &reference as _].map(|make| run(make, dtype, rounding));
        for (found, expected) in found.iter().zip(&expected) {
            let error = (matrix(&found.view()) - matrix(&expected.view())).amax();
            let bound = 30.0 * expected.dtype().unit_roundoff();
            assert!(error < bound, "{dtype}: {error}");
        }
    }
}

/// What is wrong with a step.
#[derive(Clone, Copy)]
enum Wrong {
    Lr,
    Value,
    Grad,
    /// The value is the largest f16 number, and grows.
    Edge,
}

/// A step that is refused or taken back; what is said about it.
fn refusal(make: BackendFn, wrong: Wrong) -> String {
    let lr = match wrong {
        Wrong::Lr => 1e41,
        Wrong::Value | Wrong::Grad => 1e-3,
        Wrong::Edge => 100.0,
    };
    let dtype = if matches!(wrong, Wrong::Edge) {
        DType::F16
    } else {
        DType::F32
    };
    let hyper = hyper(Method::Lora).lr(lr).weight_decay(0.0);
    let mut optimizer = Optimizer::new(make(), hyper.into()).expect("valid");
    let spec = ParamSpec::new("parameter", ROWS, COLS).dtype(dtype);
    let id = optimizer.add_param(spec).expect("valid");
    let mut random = CaseSpec::default().random(8);
    let mut draw = || host(&uniform(&mut random, ROWS, COLS), dtype);
    let (mut value, mut grad) = (draw(), draw());
    let last = (ROWS - 1, COLS - 1);
    match wrong {
        Wrong::Lr => {}
        Wrong::Value => value.view_mut().set(last.0, last.1, f64::INFINITY),
        Wrong::Grad => grad.view_mut().set(last.0, last.1, f64::INFINITY),
        Wrong::Edge => {
            value.view_mut().set(last.0, last.1, 65504.0);
            grad.view_mut().set(last.0, last.1, -1.0);
        }
    }
    let before = value.clone();
    let io = ParamIo::new(id, value.view_mut(), grad.view());
    let error = optimizer
        .step_with_params(&mut [], &mut [io])
        .expect_err("it cannot be made");
    assert!(value == before, "the value has changed");
    assert_eq!(optimizer.params()[0].state.step, 0);
    error.to_string()
}

/// A value leaves its type, or something is not finite to begin with: nothing changes, and the same
/// is said as by the reference.
pub fn refused() {
    for wrong in [Wrong::Lr, Wrong::Value, Wrong::Grad, Wrong::Edge] {
        next("a parameter is refused");
        assert_eq!(refusal(&cuda, wrong), refusal(&reference, wrong));
    }
}
