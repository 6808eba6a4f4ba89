//! What ends a command early, and the exit code that says so.

use std::process::ExitCode;

use lora_pro_core::Error;

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// What the user gave cannot be used: exit code 2.
    Input(String),
    /// The work itself failed, or its result is not good enough: exit code 1.
    Run(String),
    /// The reader of our output is gone, as after `head`: nothing to say, exit code 0.
    ReaderGone,
}

impl Failure {
    /// The exit code, as `lora-pro --help` documents it.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::ReaderGone => 0,
            Failure::Run(_) => 1,
            Failure::Input(_) => 2,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NonFinite { .. } | Error::NotConverged { .. } | Error::Backend { .. } => {
                Failure::Run(message)
            }
            _ => Failure::Input(message),
        }
    }
}
