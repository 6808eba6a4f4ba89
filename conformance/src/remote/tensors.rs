//! Tensors between borrowed views, files and messages.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use lora_pro_core::backend::StateTensor;
use lora_pro_core::{DType, HostTensor, MatMut, MatRef, TensorData, encode_tensors, read_tensors};

/// Named tensors of one step, before or after.
#[derive(Debug, Default)]
pub(super) struct StepFile(BTreeMap<String, TensorData>);

impl StepFile {
    pub fn load(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let tensors = read_tensors(&bytes).map_err(|error| error.to_string())?;
        Ok(StepFile(tensors))
    }

    /// Writes a new file: a program that has mapped the old one into memory keeps what was there.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let bytes = encode_tensors(&self.0, HashMap::new()).map_err(|error| error.to_string())?;
        let removed = match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        removed
            .and_then(|()| fs::write(path, bytes))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    pub fn put(&mut self, key: String, view: &MatRef<'_>) {
        let host = HostTensor::from_fn(view.dtype(), view.shape(), |i, j| view.get(i, j));
        self.put_bytes(key, view.dtype(), view.shape(), host.bytes());
    }

    pub fn put_state(&mut self, key: String, tensor: &StateTensor, bytes: &[u8]) {
        self.put_bytes(key, tensor.dtype, tensor.shape, bytes);
    }

    fn put_bytes(&mut self, key: String, dtype: DType, shape: [usize; 2], bytes: &[u8]) {
        let (shape, bytes) = (shape.to_vec(), bytes.to_vec());
        self.0.insert(
            key,
            TensorData {
                dtype,
                shape,
                bytes,
            },
        );
    }

    /// The tensor, a matrix of whatever dtype and shape.
    pub fn take(&mut self, key: &str) -> Result<HostTensor, String> {
        let data = self.0.remove(key);
        let data = data.ok_or_else(|| format!("tensor `{key}` is missing"))?;
        let [rows, cols] = data.shape[..] else {
            return Err(format!(
                "tensor `{key}` has shape {:?}, a matrix is needed",
                data.shape
            ));
        };
        HostTensor::from_bytes(data.dtype, [rows, cols], data.bytes)
            .ok_or_else(|| format!("tensor `{key}` has too few or too many bytes"))
    }

    /// As [`StepFile::take`], and it must be of this dtype and shape.
    pub fn expect(
        &mut self,
        key: &str,
        dtype: DType,
        shape: [usize; 2],
    ) -> Result<HostTensor, String> {
        let tensor = self.take(key)?;
        if tensor.dtype() != dtype || tensor.shape() != shape {
            return Err(format!(
                "tensor `{key}` is {} {:?}, but it must be {dtype} {shape:?}",
                tensor.dtype(),
                tensor.shape()
            ));
        }
        Ok(tensor)
    }
}

/// Copies a tensor into a view of its shape and dtype, which rounds nothing.
pub(super) fn copy(from: &HostTensor, to: &mut MatMut<'_>) {
    let from = from.view();
    for i in 0..from.rows() {
        for j in 0..from.cols() {
            to.set(i, j, from.get(i, j));
        }
    }
}

/// All entries of a view with their places, row by row.
pub(super) fn entries<'v>(view: &'v MatRef<'_>) -> impl Iterator<Item = (usize, usize, f64)> + 'v {
    let rows = 0..view.rows();
    rows.flat_map(move |i| (0..view.cols()).map(move |j| (i, j, view.get(i, j))))
}
