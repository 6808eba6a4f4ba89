//! The backends of this program by name.

use lora_pro_core::{Backend, Error, Manifest};
use lora_pro_cpu::{CpuBackend, CpuOptions};
use lora_pro_cuda::StagedCudaBackend;
use lora_pro_reference::ReferenceBackend;

use crate::failure::Failure;
use crate::output::note;

/// A backend, or why there is none.
pub type BackendResult = Result<Box<dyn Backend>, Error>;

/// One row of the table.
#[derive(Debug)]
pub struct BackendEntry {
    /// Its name on the command line.
    pub name: &'static str,
    /// With so many threads; `None` for what the backend likes.
    make: fn(Option<usize>) -> BackendResult,
}

/// All backends, the one that `auto` likes best first.
pub const BACKENDS: &[BackendEntry] = &[
    BackendEntry {
        name: lora_pro_cuda::NAME,
        make: |_| Ok(Box::new(StagedCudaBackend::new(0)?)),
    },
    BackendEntry {
        name: lora_pro_cpu::NAME,
        make: |threads| {
            let options = CpuOptions::default().threads(threads);
            Ok(Box::new(CpuBackend::with(options)?))
        },
    },
    BackendEntry {
        name: lora_pro_reference::NAME,
        make: |_| Ok(Box::new(ReferenceBackend::new())),
    },
];

/// A backend that was asked for, and how.
#[derive(Clone, Debug)]
pub struct Choice {
    entry: &'static BackendEntry,
    /// Where `auto` took it: why not the one before it in the table, if there is one.
    automatic: Option<String>,
}

impl Choice {
    /// The backend called `name`. For `auto`, standard error says which one it is.
    pub fn of(name: &str) -> Result<Self, Failure> {
        if name == "auto" {
            let choice = Self::automatic()?;
            let why = choice.why();
            note(&format!("backend: {}{why}", choice.entry.name));
            return Ok(choice);
        }
        match BACKENDS.iter().find(|entry| entry.name == name) {
            Some(entry) => Ok(Choice {
                entry,
                automatic: None,
            }),
            None => Err(Failure::Input(format!(
                "there is no backend `{name}`: use one of auto {}",
                names().join(" ")
            ))),
        }
    }

    /// The first backend of the table that works here.
    pub fn automatic() -> Result<Self, Failure> {
        let mut why_not = String::new();
        for entry in BACKENDS {
            match (entry.make)(None) {
                Ok(_) => {
                    return Ok(Choice {
                        entry,
                        automatic: Some(why_not),
                    });
                }
                Err(Error::Backend { reason, .. }) => why_not = reason,
                Err(error) => why_not = error.to_string(),
            }
        }
        Err(Failure::Run(format!(
            "no backend of this build works here: {why_not}"
        )))
    }

    /// In brackets, why a faster backend was not taken; empty where it was asked for.
    fn why(&self) -> String {
        match self.automatic.as_deref() {
            None | Some("") => String::new(),
            Some(why_not) => format!(" ({why_not})"),
        }
    }

    /// A new backend of this kind.
    pub fn make(&self) -> BackendResult {
        self.make_with(None)
    }

    /// As [`Choice::make`], with so many threads where the backend has a choice.
    pub fn make_with(&self, threads: Option<usize>) -> BackendResult {
        (self.entry.make)(threads)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// What it says about itself, and how it was chosen.
    pub fn manifest(&self) -> Result<Manifest, Error> {
        let mut manifest = self.make()?.manifest();
        manifest.selection = match &self.automatic {
            Some(_) => format!("auto{}", self.why()),
            None => "asked for".into(),
        };
        Ok(manifest)
    }
}

/// The names of all backends.
fn names() -> Vec<&'static str> {
    BACKENDS.iter().map(|entry| entry.name).collect()
}
