//! The backends of this program by name.

use lora_pro_core::{Backend, Error, Manifest};
use lora_pro_cpu::{CpuBackend, CpuOptions};
use lora_pro_cuda::StagedCudaBackend;
use lora_pro_reference::ReferenceBackend;

use crate::failure::Failure;
use crate::output::note;

/// A backend, or why there is none.
pub type Made = Result<Box<dyn Backend>, Error>;

/// One row of the table.
#[derive(Debug)]
pub struct Entry {
    /// Its name on the command line.
    pub name: &'static str,
    /// When `auto` takes it: the first row that is there.
    pub why: &'static str,
    /// With so many threads; `None` for what the backend likes.
    make: fn(Option<usize>) -> Made,
}

/// All backends, the one that `auto` likes best first.
pub const BACKENDS: &[Entry] = &[
    Entry {
        name: lora_pro_cuda::NAME,
        why: "a GPU is here",
        make: |_| Ok(Box::new(StagedCudaBackend::new(0)?)),
    },
    Entry {
        name: lora_pro_cpu::NAME,
        why: "it is the fastest that works here",
        make: |threads| {
            let options = CpuOptions::default().threads(threads);
            Ok(Box::new(CpuBackend::with(options)?))
        },
    },
    Entry {
        name: lora_pro_reference::NAME,
        why: "no faster one works here",
        make: |_| Ok(Box::new(ReferenceBackend::new())),
    },
];

/// A backend that was asked for, and how.
#[derive(Clone, Debug)]
pub struct Choice {
    entry: &'static Entry,
    /// Why `auto` took it, where it did.
    automatic: Option<String>,
}

impl Choice {
    /// The backend called `name`. For `auto`, standard error says which one and why.
    pub fn of(name: &str) -> Result<Self, Failure> {
        if name == "auto" {
            let choice = Self::automatic()?;
            let why = choice.automatic.as_deref().unwrap_or_default();
            note(&format!("backend: auto chose {}: {why}", choice.entry.name));
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
                    let why = entry.why;
                    let automatic = match &why_not[..] {
                        "" => why.to_string(),
                        why_not => format!("{why} ({why_not})"),
                    };
                    return Ok(Choice {
                        entry,
                        automatic: Some(automatic),
                    });
                }
                Err(error) => why_not = error.to_string(),
            }
        }
        Err(Failure::Run(format!(
            "no backend of this build works here: {why_not}"
        )))
    }

    /// A new backend of this kind.
    pub fn make(&self) -> Made {
        self.make_with(None)
    }

    /// As [`Choice::make`], with so many threads where the backend has a choice.
    pub fn make_with(&self, threads: Option<usize>) -> Made {
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
            Some(why) => format!("auto: {why}"),
            None => "asked for".into(),
        };
        Ok(manifest)
    }
}

/// The names of all backends.
fn names() -> Vec<&'static str> {
    BACKENDS.iter().map(|entry| entry.name).collect()
}
