//! The tensors in a folder of Hugging Face's layout.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::safetensors::{Load, SliceSafetensors};
use candle_core::{DType, Device, Tensor};
use lora_pro_core::Error;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The configuration's file.
pub(crate) const CONFIG: &str = "config.json";
/// The tokenizer's file.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// The file of all tensors.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// The list of the files that hold the tensors of a large model.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// In which type the tensors of a model are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32, whatever the file has.
    #[default]
    F32,
    /// The file's type: 16-bit tensors stay so, and layers compute in f32.
    AsStored,
}

/// What JSON in a file says.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read(path).map_err(|error| Error::file(path, error))?;
    serde_json::from_slice(&text).map_err(|error| Error::file(path, error))
}

/// The tensors of floating-point numbers of a folder, by the names in its files.
pub(crate) fn read_folder(
    folder: &Path,
    precision: Precision,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut tensors = BTreeMap::new();
    for path in weight_files(folder)? {
        tensors.extend(read_file(&path, precision)?);
    }
    Ok(tensors)
}

fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let (single, index) = (folder.join(WEIGHTS), folder.join(INDEX));
    if single.exists() {
        return Ok(vec![single]);
    }
    if index.exists() {
        let shards = shards(&index)?;
        return Ok(shards.iter().map(|shard| folder.join(shard)).collect());
    }
    let reason = match folder.join("pytorch_model.bin").exists() {
        true => {
            "there is no model.safetensors; pytorch_model.bin is not read: save the model again \
                 with transformers' save_pretrained"
                .to_string()
        }
        false => format!("there is neither {WEIGHTS} nor {INDEX}"),
    };
    Err(Error::file(folder, reason))
}

/// The files that an index names.
pub(crate) fn shards(index: &Path) -> Result<BTreeSet<String>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let shards: BTreeSet<String> = read_json::<Index>(index)?
        .weight_map
        .into_values()
        .collect();
    let outside = |shard: &&String| Path::new(shard).file_name() != Some(shard.as_ref());
    match shards.iter().find(outside) {
        Some(shard) => Err(Error::file(
            index,
            format!("`{shard}` is not the name of a file in its folder"),
        )),
        None => Ok(shards),
    }
}

fn read_file(path: &Path, precision: Precision) -> Result<BTreeMap<String, Tensor>, Error> {
    let fail = |reason: String| Error::file(path, reason);
    let bytes = fs::read(path).map_err(|error| Error::file(path, error))?;
    if bytes.starts_with(b"version https://git-lfs") {
        let reason = "this is a pointer of Git LFS, not the file: run `git lfs pull`";
        return Err(Error::file(path, reason));
    }
    let file = SliceSafetensors::new(&bytes);
    let file = file.map_err(|error| fail(format!("damaged or incomplete: {error}")))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let read = || -> candle_core::Result<Option<Tensor>> {
            let Ok(dtype) = DType::try_from(view.dtype()) else {
                candle_core::bail!("its type {:?} is not supported", view.dtype());
            };
            match dtype {
                DType::F32 | DType::F16 | DType::BF16 | DType::F64 => {}
                // Tables of position numbers, which models make themselves.
                dtype if dtype.is_int() => return Ok(None),
                _ => candle_core::bail!("its type {dtype:?} is not supported"),
            }
            let tensor = view.load(&Device::Cpu)?;
            match precision {
                Precision::F32 => tensor.to_dtype(DType::F32).map(Some),
                Precision::AsStored => Ok(Some(tensor)),
            }
        };
        let tensor = read().map_err(|error| fail(format!("tensor `{name}`: {error}")))?;
        tensors.extend(tensor.map(|tensor| (name, tensor)));
    }
    Ok(tensors)
}
