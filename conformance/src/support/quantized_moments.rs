//! 8-bit moments: a step from decoded codes is the step of f32 moments, and what is stored again is
//! one of the two codes beside it, on average the number itself.

use std::path::Path;

use lora_pro_core::backend::MOMENT_BLOCK;
use lora_pro_core::{
    DType, Error, Hyper, Method, Moment, MomentDType, Optimizer, StateKind, TensorData, TensorFile,
};
use lora_pro_reference::storage::matrix;

use crate::run::Run;
use crate::sample::CaseSpec;
use crate::support::batch::{BackendFn, Batch, adapter, hyper, state_key};

/// Steps of an ordinary trajectory.
pub const STEPS: u64 = 12;

/// The full mode with this kind of moments.
pub fn with(moment_dtype: MomentDType, amsgrad: bool) -> Hyper {
    hyper(Method::Full)
        .moment_dtype(moment_dtype)
        .amsgrad(amsgrad)
        .beta2(0.9)
        .update_clip(None)
}

/// A code as the table in the book has it: bits `(c + 1023 - top) << 20` of an f32 number.
fn decoded(code: u8, signed: bool, scale: f32) -> f32 {
    let (size, top) = if signed {
        (code & 127, 127)
    } else {
        (code, 255)
    };
    if size == 0 {
        return 0.0;
    }
    let size = f32::from_bits((u32::from(size) + 1023 - top) << 20) * scale;
    if signed && code > 127 { -size } else { size }
}

/// A moment as f32 numbers, from its codes and scales.
pub fn decoded_moment(file: &TensorFile, spec: &CaseSpec, moment: Moment) -> Vec<f32> {
    read(file, spec, moment, |code| code)
}

/// For each entry of a moment, the smallest number that is not 0 in its block.
pub fn smallest(file: &TensorFile, spec: &CaseSpec, moment: Moment) -> Vec<f32> {
    read(file, spec, moment, |_| 1)
}

/// Numbers from a moment's scales and the codes that `code` has in the place of the codes there.
fn read(file: &TensorFile, spec: &CaseSpec, moment: Moment, code: impl Fn(u8) -> u8) -> Vec<f32> {
    let data = |kind| &file.tensors[&state_key(spec, kind)];
    let scales: Vec<f32> = floats(data(StateKind::WeightScale(moment)));
    let across = spec.n.div_ceil(MOMENT_BLOCK[1]);
    let codes = data(StateKind::Weight(moment)).bytes.iter().enumerate();
    let decoded = codes.map(|(at, found)| {
        let (i, j) = (at / spec.n, at % spec.n);
        let block = i / MOMENT_BLOCK[0] * across + j / MOMENT_BLOCK[1];
        decoded(code(*found), moment == Moment::First, scales[block])
    });
    decoded.collect()
}

/// The numbers of an f32 tensor.
pub fn floats(data: &TensorData) -> Vec<f32> {
    let numbers = data.bytes.chunks_exact(4);
    numbers
        .map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]))
        .collect()
}

/// A run in f32 moments that continues from the 8-bit run's codes.
fn in_f32(make: BackendFn, quantized: &mut Batch, moments: &[Moment]) -> Result<Batch, Error> {
    let spec = quantized.specs[0];
    let mut file = quantized.saved()?;
    let decoded = moments.iter().map(|moment| {
        let values = decoded_moment(&file, &spec, *moment);
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let data = TensorData::new(DType::F32, [spec.m, spec.n], bytes);
        (state_key(&spec, StateKind::Weight(*moment)), data)
    });
    file.tensors = decoded.collect();
    let text = file.document.to_string().replace("\"8bit\"", "\"f32\"");
    file.document = serde_json::from_str(&text).map_err(|error| Error::file("the state", error))?;
    Ok(Batch {
        run: Run {
            optimizer: Optimizer::load_from(make(), &file, Path::new("checkpoint"))?,
            adapters: quantized.run.adapters.clone(),
            params: vec![],
            path: quantized.run.path,
        },
        specs: vec![spec],
    })
}

/// The smaller one has blocks that are cut off; the larger one several tasks on a GPU besides.
pub fn specs() -> [CaseSpec; 2] {
    [
        adapter(45, 150, 3, DType::F32),
        adapter(490, 270, 3, DType::F32),
    ]
}

/// How far 8-bit moments are from f32 ones, over a trajectory of which each step starts from the same
/// numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// The largest distance of a factor from that with f32 moments, over the factor.
    pub factors: f64,
    /// The largest distance of a stored moment from the exact one, in steps between neighbouring
    /// codes: at most 1, and what rounding to f32 adds.
    pub codes: f64,
    /// The mean of what rounding did to first moments, in standard errors.
    pub bias: f64,
}

/// Follows 8-bit moments with f32 ones, for so many steps.
///
/// # Errors
/// Those of the backend.
pub fn follow(make: BackendFn, spec: CaseSpec, amsgrad: bool, steps: u64) -> Result<Found, Error> {
    let moments = match amsgrad {
        true => &Moment::ALL[..],
        false => &Moment::ALL[..2],
    };
    let mut quantized = Batch::start(make, &[spec], with(MomentDType::EightBit, amsgrad))?;
    let mut found = Found::default();
    let (mut sum, mut count) = (0.0, 0.0);
    for t in 1..=steps {
        let mut long = in_f32(make, &mut quantized, moments)?;
        let gradients = quantized.gradients(t);
        quantized.step_with(&gradients)?;
        long.step_with(&gradients)?;
        let (x, y) = (&quantized.run.adapters[0], &long.run.adapters[0]);
        for (x, y) in [(&x.a, &y.a), (&x.b, &y.b)] {
            let (x, y) = (matrix(&x.view()), matrix(&y.view()));
            found.factors = worse(found.factors, (x - &y).norm() / y.norm());
        }
        let (codes, exact) = (quantized.saved()?, long.saved()?);
        for moment in moments.iter().copied() {
            let stored = decoded_moment(&codes, &spec, moment);
            let exact = floats(&exact.tensors[&state_key(&spec, StateKind::Weight(moment))]);
            for off in offsets(&stored, &exact) {
                found.codes = worse(found.codes, off.abs());
                if moment == Moment::First {
                    sum += off;
                    count += 1.0;
                }
            }
        }
    }
    // Each is a draw of mean 0 from an interval of length 1 at most.
    found.bias = (sum / count) / (0.5 / f64::sqrt(count));
    Ok(found)
}

/// What rounding did to each number, in steps between neighbouring codes.
fn offsets(stored: &[f32], exact: &[f32]) -> impl Iterator<Item = f64> {
    let largest = exact.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    stored.iter().zip(exact).map(move |(stored, exact)| {
        // Eight codes in an octave: the next one is an eighth away at most. The smallest is far
        // below 1e-4 of the largest of its block.
        let step = exact.abs() / 8.0 + largest * 1e-4;
        f64::from((stored - exact) / step)
    })
}

/// The larger one, and NaN where there is one.
fn worse(x: f64, y: f64) -> f64 {
    if y.is_nan() || y > x { y } else { x }
}
