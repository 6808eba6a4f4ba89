//! Every method, storage type and layout on adapters of a few entries: small enough for Miri, which
//! still needs more than eight minutes.
//!
//! `cargo +nightly miri test -p lora-pro-cpu --test small_steps`, with
//! `MIRIFLAGS=-Zmiri-disable-isolation`. Whether results are right is conformance's business; this
//! asks whether every access to memory is in order, and whether parameters move and stay finite.

use lora_pro_core::{
    AdapterIo, AdapterSpec, Config, DType, Hyper, Location, MatMut, MatRef, Method, MomentDType,
    Optimizer, ParamIo, ParamSpec, Preset, Rounding, Scale,
};
use lora_pro_cpu::{CpuBackend, CpuOptions, SimdLevel};

const M: usize = 9;
const N: usize = 7;
const R: usize = 2;

/// Bytes of one matrix with a stride of `gap` elements beside each, starting at an odd address.
struct Tensor {
    bytes: Vec<u8>,
    shape: [usize; 2],
    strides: [isize; 2],
    dtype: DType,
}

impl Tensor {
    fn new(dtype: DType, shape: [usize; 2], columns_first: bool, size: f64) -> Self {
        let gap = 2;
        let strides = match columns_first {
            false => [(shape[1] + gap) as isize, 1],
            true => [1, (shape[0] + gap) as isize],
        };
        let count = (shape[0] + gap) * (shape[1] + gap);
        let bytes = vec![0; count * dtype.size() + 1];
        let mut tensor = Tensor {
            bytes,
            shape,
            strides,
            dtype,
        };
        let mut view = tensor.view_mut();
        for i in 0..shape[0] {
            for j in 0..shape[1] {
                view.set(i, j, size * ((3 * i + 5 * j + 1) as f64).sin());
            }
        }
        tensor
    }

    fn view_mut(&mut self) -> MatMut<'_> {
        let ptr = self.bytes[1..].as_mut_ptr();
        // SAFETY: `new` made room for every element behind the first byte; strides reach each
        // element once; `bytes` is borrowed mutably.
        unsafe { MatMut::from_raw(ptr, self.shape, self.strides, self.dtype, Location::Host) }
    }

    fn view(&self) -> MatRef<'_> {
        let ptr = self.bytes[1..].as_ptr();
        // SAFETY: as in `view_mut`, borrowed.
        unsafe { MatRef::from_raw(ptr, self.shape, self.strides, self.dtype, Location::Host) }
    }

    fn is_finite(&self) -> bool {
        let view = self.view();
        (0..self.shape[0]).all(|i| (0..self.shape[1]).all(|j| view.get(i, j).is_finite()))
    }
}

fn steps(dtype: DType, columns_first: bool, hyper: Hyper) {
    let options = CpuOptions::default()
        .threads(1)
        .simd_level(SimdLevel::Scalar)
        .poison(true);
    let backend = CpuBackend::with(options).expect("every machine has the scalar path");
    let config = Config::from(hyper).max_grad_norm(Some(1.0));
    let mut optimizer = Optimizer::new(Box::new(backend), config).expect("valid");
    let scale = Scale::Explicit(2.0);
    let spec = AdapterSpec::new("adapter", M, N, R)
        .scale(scale)
        .dtype(dtype);
    let id = optimizer.add_adapter(spec).expect("valid");
    let bias = ParamSpec::new("bias", 1, N).dtype(dtype);
    let bias = optimizer.add_param(bias).expect("valid");
    let new = |shape, size| Tensor::new(dtype, shape, columns_first, size);
    let (mut a, mut b, mut w0) = (new([R, N], 0.5), new([M, R], 0.1), new([M, N], 1.0));
    let (grad_a, grad_b) = (new([R, N], 0.3), new([M, R], -0.2));
    let (mut value, grad) = (new([1, N], 1.0), new([1, N], 0.1));
    let before = (a.bytes.clone(), b.bytes.clone(), value.bytes.clone());
    for _ in 0..2 {
        let adapter = AdapterIo::new(id, a.view_mut(), b.view_mut(), grad_a.view(), grad_b.view())
            .w0(Some(w0.view_mut()));
        let param = ParamIo::new(bias, value.view_mut(), grad.view());
        let report = optimizer.step_with_params(&mut [adapter], &mut [param]);
        report.expect("a step");
    }
    assert!(a.is_finite() && b.is_finite() && w0.is_finite() && value.is_finite());
    assert!(before.0 != a.bytes && before.1 != b.bytes && before.2 != value.bytes);
}

#[test]
fn every_method_in_every_storage_type_and_layout() {
    for method in [
        Method::Lora,
        Method::Sgd,
        Method::Efficient,
        Method::Factored,
        Method::Full,
    ] {
        let sgd = method == Method::Sgd;
        for dtype in DType::PARAMETERS {
            let hyper = Preset::Recommended
                .hyper()
                .method(method)
                .lr(0.1)
                .momentum(if sgd { 0.5 } else { 0.0 })
                .amsgrad(!sgd)
                .decay_base(true)
                .weight_decay(if sgd { 0.0 } else { 0.1 })
                .update_clip(Some(0.5));
            steps(dtype, false, hyper);
            steps(dtype, true, hyper.rounding(Rounding::MasterCopy));
            steps(dtype, true, hyper.rounding(Rounding::Stochastic));
        }
    }
}

#[test]
fn every_storage_type_of_moments() {
    for moment_dtype in [MomentDType::F64, MomentDType::Bf16, MomentDType::EightBit] {
        let method = Method::Full;
        let hyper = Preset::Recommended
            .hyper()
            .method(method)
            .moment_dtype(moment_dtype)
            .amsgrad(true);
        steps(DType::F32, false, hyper.lr(0.1));
    }
}
