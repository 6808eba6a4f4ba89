//! A run to and from a file: everything that continuing to the last bit needs, but the frozen
//! network and the data, of which it holds the checksums.
//!
//! Tensors: `trained.*` what is trained and `state.*` the optimizer's (`lora-pro-candle`),
//! `history.*`. The document holds the run.

use std::path::Path;
use std::sync::Arc;

use lora_pro_core::{Backend, Error, TensorData, TensorFile};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::examples::Examples;
use crate::network::Network;
use crate::run::RunConfig;
use crate::trainer::{History, Trainer};

/// Version of the layout. A file of another version is refused.
const FORMAT_VERSION: u32 = 2;

/// Where the header stands in the file's document.
const KEY: &str = "training";

#[derive(Serialize, Deserialize)]
struct Header {
    format_version: u32,
    run: RunConfig,
    base_crc32: u32,
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
            base_crc32: self.base.checksum()?,
            data: self.data.name().into(),
            data_crc32: self.data.checksum()?,
            diverged: self.diverged,
        };
        let mut file = TensorFile::new();
        file.document = json!({ KEY: header });
        let History { losses, updates } = &self.history;
        for (name, values) in [("losses", losses), ("updates", updates)] {
            let data = TensorData::from_slice([values.len()], values);
            file.tensors.insert(format!("history.{name}"), data);
        }
        self.optimizer.save_to(&mut file)?;
        file.save(path)
    }

    /// The run that [`Trainer::save`] wrote, on the frozen network and the data that it began with.
    /// It continues to the last bit on the backend and machine that it began on.
    ///
    /// Refuses a damaged file, another network or other data than the run began with, and a file of
    /// another version, each with a reason.
    pub fn load(
        path: &Path,
        base: &Network,
        data: Arc<dyn Examples>,
        backend: Box<dyn Backend>,
    ) -> Result<Self, Error> {
        let file = TensorFile::load(path)?;
        let refuse = |reason: String| Error::file(path, reason);
        let header = read_header(&file).map_err(refuse)?;
        if header.data_crc32 != data.checksum()? {
            return Err(refuse(format!(
                "this run was trained on {}, not on the rows given now",
                header.data
            )));
        }
        if header.base_crc32 != base.checksum()? {
            let reason = "this run was trained on another frozen network than the one given now";
            return Err(refuse(reason.into()));
        }
        let mut trainer = Self::new(base, data, header.run, backend)?;
        trainer.optimizer.load_from(&file, path)?;
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

fn read_history(file: &TensorFile) -> Result<History, String> {
    let numbers = |name: &str| {
        let data = file.tensors.get(name);
        let data = data.ok_or_else(|| format!("tensor `{name}` is missing"))?;
        data.to_vec::<f64>().map_err(|error| error.to_string())
    };
    Ok(History {
        losses: numbers("history.losses")?,
        updates: numbers("history.updates")?,
    })
}
