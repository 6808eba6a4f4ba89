//! The files of the kernels.

use std::fs;
use std::path::{Path, PathBuf};

use crate::result::Result;

/// The one that includes the others.
pub const MAIN: &str = "all.cu";

/// Names and contents, the main file first.
pub fn read(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    for path in list(folder)? {
        let text = fs::read_to_string(&path).map_err(|error| at(&path, &error))?;
        sources.push((name(&path), text));
    }
    sources.sort_by_key(|(name, _)| (name != MAIN, name.clone()));
    Ok(sources)
}

/// Copies all of them.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for path in list(from)? {
        fs::copy(&path, to.join(name(&path))).map_err(|error| at(&path, &error))?;
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| at(folder, &error))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: Vec<PathBuf> = paths
        .collect::<std::io::Result<_>>()
        .map_err(|error| at(folder, &error))?;
    let is_source = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default();
        extension == "cu" || extension == "cuh"
    };
    Ok(paths.into_iter().filter(is_source).collect())
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
