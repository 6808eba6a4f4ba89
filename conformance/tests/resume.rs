//! State is the same on every backend, and continues to the last bit on the one that wrote it.

mod common;

use common::{
    BackendFn, Batch, METHODS, adapter, cpu, cuda, differing, hyper, reference, variants,
};
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::backend::MOMENT_BLOCK;
use lora_pro_core::{DType, Hyper, Method, MomentDType, Rounding};

/// Steps of a trajectory; it is interrupted before each of them.
const STEPS: u64 = 4;

fn specs(dtype: DType) -> Vec<CaseSpec> {
    vec![adapter(7, 65, 3, dtype), adapter(70, 13, 2, dtype)]
}

fn continues(make: BackendFn, dtype: DType, hyper: Hyper) {
    let mut straight = Batch::start(make, &specs(dtype), hyper).expect("valid");
    let mut interrupted = Batch::start(make, &specs(dtype), hyper).expect("valid");
    for t in 1..=STEPS {
        straight.step(t).expect("a step");
        interrupted = interrupted.moved_to(make).expect("loads");
        interrupted.step(t).expect("a step");
    }
    let differ = differing(
        &straight.bits().expect("saves"),
        &interrupted.bits().expect("saves"),
    );
    assert!(differ.is_empty(), "{hyper:?} in {dtype}: {differ:?}");
}

fn continues_everywhere(make: BackendFn) {
    for dtype in DType::PARAMETERS {
        for method in METHODS {
            for (moment_dtype, rounding) in variants(dtype) {
                let hyper = hyper(method).moment_dtype(moment_dtype).rounding(rounding);
                continues(make, dtype, hyper);
            }
        }
    }
}

#[test]
fn reference_continues_to_the_last_bit() {
    continues_everywhere(&reference);
}

#[test]
fn cpu_continues_to_the_last_bit() {
    continues_everywhere(&cpu);
}

#[test]
fn cuda_continues_to_the_last_bit() {
    continues_everywhere(&cuda);
}

fn continues_stochastic_rounding(make: BackendFn) {
    for dtype in [DType::Bf16, DType::F16] {
        for method in METHODS {
            let hyper = hyper(method).rounding(Rounding::Stochastic);
            continues(make, dtype, hyper);
        }
    }
}

#[test]
fn cpu_continues_stochastic_rounding() {
    continues_stochastic_rounding(&cpu);
}

#[test]
fn cuda_continues_stochastic_rounding() {
    continues_stochastic_rounding(&cuda);
}

fn continues_8_bit_moments(make: BackendFn, dtypes: &[DType]) {
    for dtype in dtypes {
        for amsgrad in [false, true] {
            let hyper = hyper(Method::Full)
                .moment_dtype(MomentDType::EightBit)
                .amsgrad(amsgrad);
            continues(make, *dtype, hyper);
        }
    }
}

#[test]
fn cpu_continues_8_bit_moments() {
    continues_8_bit_moments(&cpu, &DType::PARAMETERS);
}

#[test]
fn cuda_continues_8_bit_moments() {
    continues_8_bit_moments(&cuda, &[DType::F32, DType::Bf16, DType::F16]);
}

/// The tensors of 8-bit moments are what core says: codes of W's shape, one scale per block.
#[test]
fn tensors_of_8_bit_moments() {
    let hyper = hyper(Method::Full).moment_dtype(MomentDType::EightBit);
    let mut batch = Batch::start(&cpu, &specs(DType::F32)[..1], hyper).expect("valid");
    batch.step(1).expect("a step");
    let saved = batch.saved().expect("saves");
    let blocks = [
        7usize.div_ceil(MOMENT_BLOCK[0]),
        65usize.div_ceil(MOMENT_BLOCK[1]),
    ];
    for moment in ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"] {
        let find = |suffix: &str| {
            let key = |name: &&String| name.ends_with(&format!(".{moment}{suffix}"));
            &saved.tensors[saved.tensors.keys().find(key).expect("it is saved")]
        };
        let (codes, scales) = (find(""), find("_scale"));
        assert_eq!((codes.dtype, &codes.shape[..]), (DType::U8, &[7, 65][..]));
        assert_eq!((scales.dtype, &scales.shape[..]), (DType::F32, &blocks[..]));
        let finite = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("4")).is_finite();
        assert!(scales.bytes.chunks(4).all(finite));
        assert!(
            codes.bytes.iter().any(|code| *code != codes.bytes[0]),
            "{moment}"
        );
    }
}

/// A checkpoint of one loads on every other without a bit changed.
#[test]
fn checkpoints_move_between_backends() {
    let there: [BackendFn; 3] = [&reference, &cpu, &cuda];
    let routes = [[0, 1], [1, 0], [1, 2], [2, 1], [2, 0], [0, 2]];
    for dtype in DType::PARAMETERS {
        for method in METHODS {
            for (moment_dtype, rounding) in variants(dtype) {
                let hyper = hyper(method).moment_dtype(moment_dtype).rounding(rounding);
                for [from, to] in routes.map(|route| route.map(|k| there[k])) {
                    let mut batch = Batch::start(from, &specs(dtype), hyper).expect("valid");
                    batch.step(1).expect("a step");
                    let mut moved = batch.moved_to(to).expect("loads");
                    let same = batch.bits().expect("saves") == moved.bits().expect("saves");
                    assert!(same, "{hyper:?} in {dtype}");
                    moved.step(2).expect("goes on");
                }
            }
        }
    }
}
