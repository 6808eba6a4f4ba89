//! A run to and from a file: everything that continuing to the last bit needs.
//!
//! Tensors: `base.*` the frozen network, `trained.*` what is trained, `state.*` the optimizer's
//! (core), `history.*`. The document holds the run and the data's checksum.

use std::path::Path;

use lora_pro_core::{Backend, DType, Error, HostTensor, Optimizer, TensorData, TensorFile};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Dataset, History, Network, Run, Trainer, adapted::Adapted};

/// Version of the layout. A file of another version is refused.
const FORMAT_VERSION: u32 = 1;

/// Where the header stands in the file's document.
const KEY: &str = "training";

#[derive(Serialize, Deserialize)]
struct Header {
    format_version: u32,
    run: Run,
    data: String,
    data_crc32: u32,
    diverged: bool,
}

impl Trainer {
    /// Writes the whole state, atomically; the file it replaces stays as
    /// [`lora_pro_core::backup_path`].
    pub fn save(&mut self, path: &Path) -> Result<(), Error> {
        let header = Header {
            format_version: FORMAT_VERSION,
            run: self.run.clone(),
            data: self.data.name.clone(),
            data_crc32: self.data_crc32,
            diverged: self.diverged,
        };
        let mut file = TensorFile::new();
        file.document = json!({ KEY: header });
        self.base.write("base.", &mut file.tensors)?;
        for (name, trained) in self.adapted.trained_mut() {
            file.tensors
                .insert(format!("trained.{name}"), host_data(&trained.host));
        }
        file.tensors
            .insert("history.losses".into(), numbers_data(&self.history.losses));
        file.tensors.insert(
            "history.updates".into(),
            numbers_data(&self.history.updates),
        );
        self.optimizer.save_to(&mut file)?;
        file.save(path)
    }

    /// The run that [`Trainer::save`] wrote. It continues to the last bit on the backend and
    /// machine that it began on.
    ///
    /// Refuses a damaged file, other training data than the run began with, and a file of
    /// another version, each with a reason.
    pub fn load(path: &Path, data: &Dataset, backend: Box<dyn Backend>) -> Result<Self, Error> {
        let file = TensorFile::load(path)?;
        let refuse = |reason: String| Error::file(path, reason);
        let header = read_header(&file).map_err(refuse)?;
        if header.data_crc32 != data.checksum()? {
            return Err(refuse(format!(
                "the run trains on {}, but the rows given are others",
                header.data
            )));
        }
        let base = Network::read("base.", &file.tensors).map_err(refuse)?;
        let mut adapted = Adapted::new(&base, &header.run)?;
        restore(&mut adapted, &file).map_err(refuse)?;
        adapted.publish()?;
        let optimizer = Optimizer::load_from(backend, &file, path)?;
        if !fits(&optimizer, &adapted) {
            return Err(refuse("its optimizer does not fit its network".into()));
        }
        let mut trainer = Self::assemble(base, data.clone(), header.run, adapted, optimizer)?;
        trainer.history = read_history(&file).map_err(refuse)?;
        trainer.diverged = header.diverged;
        Ok(trainer)
    }
}

fn read_header(file: &TensorFile) -> Result<Header, String> {
    let header = file.document.get(KEY).ok_or("it holds no training run")?;
    let version = &header["format_version"];
    if *version != json!(FORMAT_VERSION) {
        let known = FORMAT_VERSION;
        return Err(format!(
            "its format version is {version}, this program reads {known}"
        ));
    }
    Header::deserialize(header).map_err(|error| format!("its header is damaged ({error})"))
}

/// Overwrites what is trained.
fn restore(adapted: &mut Adapted, file: &TensorFile) -> Result<(), String> {
    for (name, trained) in adapted.trained_mut() {
        let data = tensor(file, &format!("trained.{name}"))?;
        let (dtype, shape) = (trained.host.dtype(), trained.host.shape());
        let restored = HostTensor::from_bytes(dtype, shape, data.bytes.clone());
        let same = data.dtype == dtype && data.shape == shape;
        trained.host = restored
            .filter(|_| same)
            .ok_or_else(|| format!("tensor `trained.{name}` does not fit its network"))?;
    }
    Ok(())
}

/// Whether the optimizer steps exactly these tensors, in this order.
fn fits(optimizer: &Optimizer, adapted: &Adapted) -> bool {
    let adapters = optimizer.adapters().iter().map(|slot| &slot.spec);
    let params = optimizer.params().iter().map(|slot| &slot.spec);
    adapters.eq(adapted.adapters.iter().map(|pair| &pair.spec))
        && params.eq(adapted.params.iter().map(|param| &param.spec))
}

fn read_history(file: &TensorFile) -> Result<History, String> {
    let losses = numbers(tensor(file, "history.losses")?);
    let updates = numbers(tensor(file, "history.updates")?);
    Ok(History { losses, updates })
}

fn tensor<'f>(file: &'f TensorFile, name: &str) -> Result<&'f TensorData, String> {
    file.tensors
        .get(name)
        .ok_or_else(|| format!("tensor `{name}` is missing"))
}

fn host_data(host: &HostTensor) -> TensorData {
    let (dtype, shape) = (host.dtype(), host.shape().to_vec());
    TensorData {
        dtype,
        shape,
        bytes: host.bytes().to_vec(),
    }
}

fn numbers_data(values: &[f64]) -> TensorData {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    TensorData {
        dtype: DType::F64,
        shape: vec![values.len()],
        bytes,
    }
}

fn numbers(data: &TensorData) -> Vec<f64> {
    let (chunks, _) = data.bytes.as_chunks::<8>();
    chunks
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes))
        .collect()
}
