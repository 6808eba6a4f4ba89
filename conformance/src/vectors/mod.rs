//! The vector suite in `conformance/vectors`: trajectories to follow and cases to refuse, each
//! with a number, a comment and the bug classes that it looks for.
//!
//! | module | what |
//! |---|---|
//! | [`catalogue`] | the generated vectors, as data |
//! | [`recorded`] | the recorded ones |
//! | [`flags`] | the bug classes |
//! | [`generate`] | files from the catalogue |
//! | [`index`] | `index.json` |

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub mod catalogue;
pub mod flags;
pub mod follow;
pub mod generate;
pub mod index;
pub mod recorded;

/// Version of the suite: raised whenever a vector is added, withdrawn or changed.
pub const VERSION: &str = "1";

static ELSEWHERE: OnceLock<PathBuf> = OnceLock::new();

/// Where the suite is: in a checkout, or where [`lies_in`] has said.
pub fn folder() -> PathBuf {
    let elsewhere = ELSEWHERE.get().cloned();
    elsewhere.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors"))
}

/// Says, once and before anything is read, where the suite is: for programs that carry it along.
pub fn lies_in(folder: &Path) {
    // Who comes later is too late.
    let _ = ELSEWHERE.set(folder.to_path_buf());
}
