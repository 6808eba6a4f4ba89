//! Implementations in any language: a child process that steps adapters, seen as a backend.
//!
//! [`Remote::start`] runs a command and asks it what it is; [`Remote::backend`] makes as many
//! [`Backend`]s of it as are wanted, each a session of its own in the same child. What the child's
//! description does not list is refused without asking it. A child that dies, talks nonsense or is
//! late gives an error and is killed; the next session gets a new one.
//!
//! | module | what |
//! |---|---|
//! | [`protocol`] | the messages |
//! | [`description`] | what a child says it can do |
//! | `process` | a child with limits |
//! | `backend` | core's contract, spoken by way of messages |
//! | `tensors`, `report`, `explain` | files, reports and errors of a step |
//! | `serve` | the other side for backends in Rust |
//!
//! ```no_run
//! use lora_pro_conformance::remote::{Limits, Remote};
//! use lora_pro_core::{Config, Optimizer};
//!
//! let remote = Remote::start("python3 my_optimizer.py", Limits::default())?;
//! println!("{} {}", remote.description().name, remote.description().version);
//! let optimizer = Optimizer::new(remote.backend(), Config::default())?;
//! # Ok::<(), lora_pro_core::Error>(())
//! ```

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lora_pro_core::{Backend, Error};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

mod backend;
pub mod description;
mod explain;
mod process;
pub mod protocol;
mod report;
mod serve;
mod tensors;

pub use backend::RemoteBackend;
pub use description::{Description, Opt};
pub use process::Limits;
pub use serve::serve;

use process::{Ended, Process};
use protocol::{Answer, Hello, NOT_IMPLEMENTED, PROTOCOL, Request};

/// An implementation behind a command. Clones share the child.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

struct Shared {
    command: String,
    limits: Limits,
    description: Description,
    link: Mutex<Link>,
}

/// The child that answers now.
#[derive(Default)]
struct Link {
    process: Option<Process>,
    /// Counts the children; a session lives as long as the one that it began with.
    child: u64,
    /// Counts the sessions of all children.
    sessions: u64,
}

/// A session of one child.
struct Session {
    child: u64,
    number: u64,
    /// Where the tensors of its steps are.
    folder: TempDir,
}

impl Session {
    /// The tensors before a step.
    fn input(&self) -> PathBuf {
        self.folder.path().join("in.safetensors")
    }

    /// The tensors after a step.
    fn output(&self) -> PathBuf {
        self.folder.path().join("out.safetensors")
    }
}

impl Remote {
    /// Starts the command and asks it what it is.
    ///
    /// The command is one program with its arguments, in the words of the system's shell.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it exits with status 89, [`Error::Backend`] where it cannot be
    /// started or does not answer as it should.
    pub fn start(command: &str, limits: Limits) -> Result<Self, Error> {
        let (process, description) = launch(command, limits)?;
        let link = Link {
            process: Some(process),
            child: 1,
            sessions: 0,
        };
        let shared = Shared {
            command: command.into(),
            limits,
            description,
            link: Mutex::new(link),
        };
        Ok(Remote {
            shared: Arc::new(shared),
        })
    }

    /// What the child says it is and can do.
    pub fn description(&self) -> &Description {
        &self.shared.description
    }

    /// Whether the child shows the state tensor called `name`. Downloading any other is
    /// unsupported.
    pub fn exposes(&self, name: &str) -> bool {
        self.description().exposes(name)
    }

    /// A backend that is one session of the child.
    pub fn backend(&self) -> Box<dyn Backend> {
        Box::new(RemoteBackend::new(self.clone()))
    }

    fn name(&self) -> &str {
        &self.shared.description.name
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        // A panic during a request leaves at worst a child, which the next request kills.
        let link = self.shared.link.lock();
        link.unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session, in a new child if the last one is gone.
    fn open(&self) -> Result<Session, Error> {
        let folder = tempfile::Builder::new()
            .prefix("lora-pro-")
            .tempdir()
            .map_err(|error| Error::file(std::env::temp_dir(), error))?;
        let mut link = self.link();
        if link.process.is_none() {
            let (process, description) = launch(&self.shared.command, self.shared.limits)?;
            if description != self.shared.description {
                return Err(failed(self.name(), "describes itself differently now"));
            }
            link.process = Some(process);
            link.child += 1;
        }
        link.sessions += 1;
        Ok(Session {
            child: link.child,
            number: link.sessions,
            folder,
        })
    }

    /// Asks the session's child.
    fn ask<T: DeserializeOwned>(
        &self,
        session: &Session,
        request: &Request,
    ) -> Result<Answer<T>, Error> {
        let mut link = self.link();
        let same = link.child == session.child;
        let Some(process) = link.process.as_mut().filter(|_| same) else {
            return Err(failed(self.name(), "the child of this session is gone"));
        };
        ask(process, request).map_err(|ended| {
            link.process = None;
            error(self.name(), ended)
        })
    }
}

/// A child that has said hello and described itself.
fn launch(command: &str, limits: Limits) -> Result<(Process, Description), Error> {
    let mut process = Process::start(command, limits).map_err(|ended| error(command, ended))?;
    let hello = Request::Hello {
        protocol: PROTOCOL,
        kit: env!("CARGO_PKG_VERSION").into(),
    };
    let Hello { protocol } = expect(command, &mut process, &hello)?;
    if protocol != PROTOCOL {
        let reason = format!("speaks protocol {protocol}, this kit speaks {PROTOCOL}");
        return Err(failed(command, &reason));
    }
    let description: Description = expect(command, &mut process, &Request::Describe)?;
    description
        .validate()
        .map_err(|reason| failed(command, &format!("describes itself badly: {reason}")))?;
    Ok((process, description))
}

/// An answer that must be `ok`.
fn expect<T: DeserializeOwned>(
    name: &str,
    process: &mut Process,
    request: &Request,
) -> Result<T, Error> {
    match ask(process, request).map_err(|ended| error(name, ended))? {
        Answer::Ok(answer) => Ok(answer),
        Answer::Unsupported(what) => Err(unsupported("the child", name, what)),
        Answer::Error(failure) => Err(failed(name, &failure.message)),
    }
}

fn ask<T: DeserializeOwned>(process: &mut Process, request: &Request) -> Result<Answer<T>, Ended> {
    let line = serde_json::to_string(request)
        .map_err(|error| Ended::Failed(format!("cannot be asked: {error}")))?;
    let answer = process.ask(line)?;
    serde_json::from_str(&answer).map_err(|error| {
        let start: String = answer.chars().take(80).collect();
        process.failed(&format!("answered `{start}`, which is no answer ({error})"))
    })
}

fn error(name: &str, ended: Ended) -> Error {
    match ended {
        Ended::NotImplemented => {
            let what = format!("any of this: it exited with status {NOT_IMPLEMENTED}");
            unsupported("the child", name, what)
        }
        Ended::Failed(reason) => failed(name, &reason),
    }
}

fn failed(name: &str, reason: &str) -> Error {
    Error::backend(name, reason)
}

fn unsupported(subject: &str, name: &str, what: String) -> Error {
    Error::Unsupported {
        subject: subject.into(),
        backend: name.into(),
        what,
    }
}
