//! The vector suite in `conformance/vectors`: trajectories to follow and cases to refuse, each
//! with a number, a comment and the bug classes that it looks for.
//!
//! | module | what |
//! |---|---|
//! | [`catalogue`] | the generated vectors, as data |
//! | [`recorded`] | the recorded ones |
//! | [`flags`] | the bug classes |
//! | [`generate`] | files from the catalogue, and the index |
//! | [`schema`] | `index.json`: its types, read and written |
//! | [`follow`] | the vectors as one check |

use std::path::{Path, PathBuf};

pub mod catalogue;
pub mod flags;
pub mod follow;
pub mod generate;
pub mod recorded;
pub mod schema;

/// Version of the suite: raised whenever a vector is added, withdrawn or changed.
pub const VERSION: &str = "1";

/// Where the suite is: in a checkout, or in the folder that the variable `LORA_PRO_VECTORS` names.
pub fn folder() -> PathBuf {
    let elsewhere = std::env::var_os("LORA_PRO_VECTORS").map(PathBuf::from);
    elsewhere.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors"))
}
