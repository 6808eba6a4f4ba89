//! A file of named tensors and one JSON document: safetensors with a checksum, written atomically.
//!
//! safetensors alone does not notice a flipped bit in its data, so the document and all tensors
//! are covered by a CRC-32 that is stored beside them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};

use crate::error::Error;
use crate::tensor::{DType, Element, HostTensor};

/// What a tensor of any number of dimensions holds, as row-major little-endian bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorData {
    /// Storage type.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<usize>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Named tensors and one JSON document, which is an object.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TensorFile {
    /// The document.
    pub document: Value,
    /// The tensors.
    pub tensors: BTreeMap<String, TensorData>,
}

/// The one metadata key that holds everything: safetensors keeps metadata in no fixed order.
const KEY: &str = "lora-pro";

impl TensorData {
    /// From row-major little-endian bytes.
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>, bytes: Vec<u8>) -> Self {
        TensorData {
            dtype,
            shape: shape.into(),
            bytes,
        }
    }

    /// From row-major values, as many as `shape` has entries.
    ///
    /// ```
    /// use lora_pro_core::TensorData;
    /// let data = TensorData::from_slice([2, 2], &[1.0f32, 2.0, 3.0, 4.0]);
    /// assert_eq!(data.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
    /// assert!(data.to_vec::<f64>().is_err());
    /// # Ok::<(), lora_pro_core::Error>(())
    /// ```
    pub fn from_slice<T: Element>(shape: impl Into<Vec<usize>>, values: &[T]) -> Self {
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|value| value.write(&mut bytes));
        TensorData::new(T::DTYPE, shape, bytes)
    }

    /// The row-major values. Rejects another type than `T`.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, Error> {
        match self.dtype == T::DTYPE {
            true => Ok(T::read(&self.bytes)),
            false => Err(Error::invalid(
                "a tensor",
                "dtype",
                self.dtype,
                T::DTYPE.to_string(),
            )),
        }
    }
}

impl From<&HostTensor> for TensorData {
    fn from(tensor: &HostTensor) -> Self {
        TensorData::new(tensor.dtype(), tensor.shape(), tensor.bytes().to_vec())
    }
}

impl Default for TensorFile {
    fn default() -> Self {
        TensorFile::new()
    }
}

impl TensorFile {
    /// A file without tensors, whose document is an empty object.
    pub fn new() -> Self {
        TensorFile {
            document: json!({}),
            tensors: BTreeMap::new(),
        }
    }

    /// Writes the file so that at every moment `path` is either the old file or the new one. The
    /// old one stays as [`backup_path`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let bytes = self.to_bytes(path)?;
        replace(path, &bytes).map_err(|error| Error::file(path, error))
    }

    /// Reads and checks a file. A damaged one is rejected with a reason that names the previous
    /// one, if there is one.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|error| Error::file(path, error))?;
        Self::from_bytes(&bytes).map_err(|reason| {
            let old = backup_path(path);
            let hint = if old.exists() {
                format!("; the one before it is {}", old.display())
            } else {
                String::new()
            };
            Error::file(path, format!("{reason}{hint}"))
        })
    }

    fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let sealed = json!({ "document": self.document, "crc32": self.checksum() });
        let metadata = HashMap::from([(KEY.to_string(), sealed.to_string())]);
        encode_tensors(&self.tensors, metadata).map_err(|error| Error::file(path, error))
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let metadata = read_metadata(bytes)?;
        let sealed = metadata
            .get(KEY)
            .ok_or_else(|| Error::encoding("it has no lora-pro header"))?;
        let mut sealed: Value = serde_json::from_str(sealed).map_err(|error| {
            Error::encoding(format!("its lora-pro header is damaged ({error})"))
        })?;
        let crc = sealed["crc32"].as_u64();
        let document = sealed
            .get_mut("document")
            .map(Value::take)
            .unwrap_or_default();
        let tensors = read_tensors(bytes)?;
        let file = TensorFile { document, tensors };
        if crc != Some(u64::from(file.checksum())) {
            let reason = "its checksum is wrong: the file is damaged";
            return Err(Error::encoding(reason));
        }
        Ok(file)
    }

    /// CRC-32 of the document and of every tensor's name, dtype, shape and bytes.
    fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.document.to_string().as_bytes());
        for (name, data) in &self.tensors {
            hasher.update(format!("{name}:{}:{:?}", data.dtype, data.shape).as_bytes());
            hasher.update(&data.bytes);
        }
        hasher.finalize()
    }
}

/// A plain safetensors file with string metadata, as other programs read it.
pub fn encode_tensors(
    tensors: &BTreeMap<String, TensorData>,
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>, Error> {
    let views = tensors
        .iter()
        .map(|(name, data)| {
            TensorView::new(to_safetensors(data.dtype), data.shape.clone(), &data.bytes)
                .map(|view| (name, view))
        })
        .collect::<Result<Vec<_>, _>>();
    views
        .and_then(|views| serialize(views, Some(metadata)))
        .map_err(Error::encoding)
}

/// The string metadata of a safetensors file; none is the same as an empty one.
pub fn read_metadata(bytes: &[u8]) -> Result<HashMap<String, String>, Error> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// All tensors of a safetensors file, this project's or another program's.
pub fn read_tensors(bytes: &[u8]) -> Result<BTreeMap<String, TensorData>, Error> {
    let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
    file.iter()
        .map(|(name, view)| {
            let dtype = from_safetensors(view.dtype()).ok_or_else(|| {
                Error::encoding(format!("tensor `{name}` has dtype {:?}", view.dtype()))
            })?;
            let data = TensorData::new(dtype, view.shape(), view.data().to_vec());
            Ok((name.to_string(), data))
        })
        .collect()
}

fn unreadable(error: SafeTensorError) -> Error {
    Error::encoding(format!("not a readable safetensors file ({error})"))
}

/// Where [`TensorFile::save`] keeps the file that it replaced.
pub fn backup_path(path: &Path) -> PathBuf {
    path.with_extension("previous.safetensors")
}

/// Writes a file so that at every moment `path` is either the old file or the whole new one.
///
/// On an error `path` is as it was, and nothing else is left behind.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    commit(path, bytes, |_| Ok(())).map_err(|error| Error::file(path, error))
}

/// As [`write_atomically`]; the old file is first linked to its `backup_path` name.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    commit(path, bytes, |path| match path.exists() {
        true => keep(path, &backup_path(path)),
        false => Ok(()),
    })
}

/// Temporary file, flush, `before`, rename.
fn commit(
    path: &Path,
    bytes: &[u8],
    before: impl Fn(&Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let written = write_durably(temporary.as_ref(), bytes)
        .and_then(|()| before(path))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a leftover does no harm.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_folder(path))
}

fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes `old` a second name of `path`'s present content, atomically.
fn keep(path: &Path, old: &Path) -> std::io::Result<()> {
    let link = old.with_extension("tmp");
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // File systems without hard links get a copy.
    if fs::hard_link(path, &link).is_err() {
        fs::copy(path, &link)?;
    }
    fs::rename(&link, old)
}

/// Makes the rename itself durable, where folders can be opened.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            File::open(folder)?.sync_all()
        }
        _ => Ok(()),
    }
}

fn to_safetensors(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::Bf16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::U8 => Dtype::U8,
    }
}

fn from_safetensors(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F64 => Some(DType::F64),
        Dtype::F32 => Some(DType::F32),
        Dtype::BF16 => Some(DType::Bf16),
        Dtype::F16 => Some(DType::F16),
        Dtype::U8 => Some(DType::U8),
        _ => None,
    }
}
