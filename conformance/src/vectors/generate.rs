//! Files from the catalogue: inputs from random numbers, outputs from the reference in f64.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lora_pro_core::{
    DType, Error, HostTensor, TensorData, encode_tensors, read_metadata, read_tensors,
    write_atomically,
};
use lora_pro_reference::ReferenceBackend;
use lora_pro_reference::storage::host;
use nalgebra::DMatrix;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::catalogue::{Corruption, Vector, VectorKind};
use super::schema::{Expected, FORMAT, Index, IndexEntry, TOLERANCE};
use super::{VERSION, catalogue, flags, recorded};
use crate::case::{Case, metadata};
use crate::replay::{Trajectory, data, replay};
use crate::residual::THRESHOLD;

/// A file's content.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorFile {
    /// The tensors by name.
    pub tensors: BTreeMap<String, TensorData>,
    /// The string metadata.
    pub metadata: BTreeMap<String, String>,
}

impl VectorFile {
    /// Takes a file apart.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|error| Error::file(path, error))?;
        let of = |bytes: &[u8]| {
            Ok(VectorFile {
                tensors: read_tensors(bytes)?,
                metadata: read_metadata(bytes)?.into_iter().collect(),
            })
        };
        of(&bytes).map_err(|error: Error| Error::file(path, error))
    }

    /// Puts a file together.
    ///
    /// # Errors
    /// Tensors whose shapes do not fit their bytes.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        encode_tensors(&self.tensors, self.metadata.clone().into_iter().collect())
            .map_err(|error| error.to_string())
    }

    /// Writes the file, and its folder where there is none.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let bytes = self.bytes().map_err(|reason| Error::file(path, reason))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        }
        write_atomically(path, &bytes)
    }
}

/// The file of a vector.
///
/// # Errors
/// A valid vector that the reference refuses.
pub fn parts(vector: &Vector) -> Result<VectorFile, String> {
    let mut parts = inputs(vector);
    match &vector.outcome {
        VectorKind::Valid => parts.tensors.extend(follow(&parts)?.tensors()),
        VectorKind::Refused { corruptions, .. } => {
            corruptions.iter().for_each(|x| apply(&mut parts, x))
        }
    }
    Ok(parts)
}

/// The entry of a vector in the index.
///
/// # Errors
/// As [`parts`].
pub fn entry(vector: &Vector) -> Result<IndexEntry, String> {
    let expected = match vector.outcome {
        VectorKind::Valid => Expected::Valid {
            tolerance: TOLERANCE,
            sensitivity: Some(rounded_up(sensitivity(vector)?)),
            reason: None,
        },
        VectorKind::Refused { by, names, .. } => Expected::Refused {
            by,
            names: names.into(),
        },
    };
    Ok(IndexEntry {
        id: vector.id,
        file: vector.file(),
        comment: vector.comment.clone(),
        flags: vector.flags.iter().map(|flag| flag.to_string()).collect(),
        source: "generated: the reference, f64".into(),
        expected,
    })
}

/// The index as it has to be: the recorded and the generated vectors.
///
/// # Errors
/// As [`entry`].
pub fn index() -> Result<Index, String> {
    let mut vectors = recorded::entries();
    for vector in catalogue::all() {
        vectors.push(entry(&vector)?);
    }
    Ok(Index {
        format: FORMAT,
        vectors_version: VERSION.into(),
        count: vectors.len(),
        flags: flags::table(),
        vectors,
    })
}

/// Where the reference goes from given inputs.
///
/// # Errors
/// What [`Case::from_bytes`] or the reference refuses.
pub fn follow(inputs: &VectorFile) -> Result<Trajectory, String> {
    let case = Case::from_bytes(&inputs.bytes()?)?;
    let reference = Box::new(ReferenceBackend::new());
    replay(&case, reference, DType::F64).map_err(|error| error.to_string())
}

/// How far the trajectory moves, as ||x - ref||_F / ||ref||_F, when every entry of every input
/// moves by one unit in the last place, up or down at random: the largest of a few trials.
///
/// # Errors
/// As [`parts`].
pub fn sensitivity(vector: &Vector) -> Result<f64, String> {
    let inputs = inputs(vector);
    let mut recorded = inputs.clone();
    recorded.tensors.extend(follow(&inputs)?.tensors());
    let case = Case::from_bytes(&recorded.bytes()?)?;
    let mut worst = 0.0_f64;
    for trial in 0..TRIALS {
        let mut random = vector.adapter().random(u64::MAX - trial);
        let moved = follow(&nudged(&inputs, &mut random))?;
        worst = worst.max(moved.deviation(&case).map_or(0.0, |found| found.error));
    }
    Ok(worst)
}

const TRIALS: u64 = 8;

fn nudged(inputs: &VectorFile, random: &mut ChaCha8Rng) -> VectorFile {
    let mut moved = inputs.clone();
    for tensor in moved.tensors.values_mut() {
        for entry in tensor.bytes.chunks_exact_mut(8) {
            let x = f64::from_le_bytes(entry.try_into().unwrap_or_default());
            let y = if random.random() {
                x.next_up()
            } else {
                x.next_down()
            };
            // A zero stays: what is structure in a case is not its rounding.
            let y = if x == 0.0 { x } else { y };
            entry.copy_from_slice(&y.to_le_bytes());
        }
    }
    moved
}

/// To one digit, so that the index does not change with the machine's last bits.
fn rounded_up(x: f64) -> f64 {
    if x == 0.0 {
        return 0.0;
    }
    let decade = x.log10().floor() as i32;
    let digit = (x / 10f64.powi(decade)).ceil();
    format!("{digit}e{decade}").parse().unwrap_or(x)
}

/// Everything but the factors after the steps.
fn inputs(vector: &Vector) -> VectorFile {
    let adapter = vector.adapter();
    let factors = adapter.factors();
    let gradient = |t| match vector.zero_gradients.contains(&t) {
        true => DMatrix::zeros(adapter.m, adapter.n),
        false => adapter.full_gradient(t),
    };
    let start = [("A.0".into(), factors.a), ("B.0".into(), factors.b)];
    let steps = (1..=adapter.steps).map(|t| (format!("g.{t}"), gradient(t)));
    VectorFile {
        tensors: start
            .into_iter()
            .chain(steps)
            .map(|(name, values)| (name, data(&host(&values, DType::F64))))
            .collect(),
        metadata: metadata(&adapter, &vector.hyper, "lora-pro reference, f64"),
    }
}

fn apply(parts: &mut VectorFile, corruptions: &Corruption) {
    match *corruptions {
        Corruption::Metadata(key, value) => {
            parts.metadata.insert(key.into(), value.into());
        }
        Corruption::NoMetadata(key) => {
            parts.metadata.remove(key);
        }
        Corruption::Missing(tensor) => {
            parts.tensors.remove(tensor);
        }
        Corruption::Transposed(tensor) => {
            if let Some(found) = parts.tensors.get_mut(tensor) {
                found.shape.reverse();
            }
        }
        Corruption::LastEntry(tensor, value) => {
            if let Some(found) = parts.tensors.get_mut(tensor) {
                put(found, value);
            }
        }
        Corruption::Shaped(tensor, shape) => {
            let zeros = data(&HostTensor::zeros(DType::F64, shape));
            parts.tensors.insert(tensor.into(), zeros);
        }
    }
}

/// Puts a value into the last entry, where a check of the first few would miss it.
fn put(tensor: &mut TensorData, value: f64) {
    if let Some(entry) = tensor.bytes.rchunks_exact_mut(8).next() {
        entry.copy_from_slice(&value.to_le_bytes());
    }
}

/// Factors of a prescribed spectrum come out of matrix products, which fuse multiplication and
/// addition on some machines and not on others: they agree to this, not to the last bit. The
/// gradients are random numbers times a number, the same everywhere.
const FACTORS: f64 = 1e-12;

/// What the reference's outputs agree to on machines that round differently, where the vector does
/// not magnify rounding: a hundredth of what other programs are allowed.
const OUTPUTS: f64 = 1e-12;

/// Whether a file is what the vector says: metadata and gradients to the last bit, A.0 and B.0 to
/// 1e-12, and the factors after the steps where the reference goes from the file's own A.0 and B.0,
/// to 1e-12 or 30 times the vector's sensitivity.
///
/// # Errors
/// What differs.
pub fn same(vector: &Vector, file: &VectorFile) -> Result<(), String> {
    let mut inputs = inputs(vector);
    if let VectorKind::Refused { corruptions, .. } = vector.outcome {
        corruptions.iter().for_each(|x| apply(&mut inputs, x));
    }
    if file.metadata != inputs.metadata {
        return Err("the metadata differ".into());
    }
    for (name, expected) in &inputs.tensors {
        let found = file.tensors.get(name);
        let found = found.ok_or_else(|| format!("{name} is missing"))?;
        if !same_input(name, found, expected) {
            return Err(format!("{name} differs"));
        }
    }
    match vector.outcome {
        VectorKind::Valid => same_outputs(vector, file),
        VectorKind::Refused { .. } if file.tensors.len() > inputs.tensors.len() => {
            Err("it has more tensors".into())
        }
        VectorKind::Refused { .. } => Ok(()),
    }
}

fn same_input(name: &str, found: &TensorData, expected: &TensorData) -> bool {
    let factor = name.ends_with(".0");
    let alike = found.dtype == expected.dtype && found.shape == expected.shape;
    found == expected || factor && alike && distance(&found.bytes, &expected.bytes) <= FACTORS
}

/// ||x - y|| / ||y|| over the entries that differ: what is equal may be infinite.
fn distance(x: &[u8], y: &[u8]) -> f64 {
    let number = |entry: &[u8]| f64::from_le_bytes(entry.try_into().unwrap_or_default());
    let adapters = x.chunks_exact(8).zip(y.chunks_exact(8));
    let squares = adapters
        .filter(|(x, y)| x != y)
        .map(|(x, y)| ((number(x) - number(y)).powi(2), number(y).powi(2)))
        .fold((0.0, 0.0), |sum, square| {
            (sum.0 + square.0, sum.1 + square.1)
        });
    lora_pro_core::backend::ratio_or_zero(squares.0.sqrt(), squares.1.sqrt())
}

fn same_outputs(vector: &Vector, file: &VectorFile) -> Result<(), String> {
    let case = Case::from_bytes(&file.bytes()?)?;
    let found = follow(file)?.deviation(&case).ok_or("it has no outputs")?;
    match found.error <= OUTPUTS || found.error <= THRESHOLD * sensitivity(vector)? {
        true => Ok(()),
        false => Err(format!(
            "{}.{} is off by {:e}",
            found.factor, found.t, found.error
        )),
    }
}
