//! What was compiled now against what is checked in.

use std::fs;
use std::path::Path;

use crate::compile::Built;
use crate::{Result, image, resources};

/// Compares everything; an error shows every difference, and what to do.
pub fn all(built: &Built, images: &Path, kernels: &Path) -> Result<()> {
    let mut differences = Vec::new();
    for (name, bytes) in &built.images {
        let there = fs::read(images.join(image::file(name)))
            .map_err(|error| error.to_string())
            .and_then(|packed| image::unpack(&packed));
        match there {
            Err(reason) => differences.push(format!("{}: {reason}", image::file(name))),
            Ok(there) => differences.extend(bytes_differ(name, &there, bytes)),
        }
    }
    let table = fs::read_to_string(kernels.join(resources::FILE)).unwrap_or_default();
    differences.extend(lines_differ(&table, &built.table));
    if differences.is_empty() {
        println!(
            "{} images and their table are as checked in",
            built.images.len()
        );
        return Ok(());
    }
    Err(format!(
        "what is checked in is not what the sources give:\n{}\nThis makes it anew:\n  \
         cargo run --release -p lora-pro-cuda-kernels -- build",
        differences.join("\n")
    ))
}

fn bytes_differ(name: &str, there: &[u8], built: &[u8]) -> Option<String> {
    if there == built {
        return None;
    }
    let adapters = there.iter().zip(built);
    let same = adapters.take_while(|(there, built)| there == built).count();
    Some(format!(
        "{name}: {} bytes are checked in, {} are built; the first {same} are the same",
        there.len(),
        built.len()
    ))
}

/// The lines that only one of two tables has.
fn lines_differ(there: &str, built: &str) -> Vec<String> {
    let only = |mark: char, one: &str, other: &str| {
        let others: Vec<&str> = other.lines().collect();
        one.lines()
            .filter(|line| !others.contains(line))
            .map(|line| format!("{}: {mark} {line}", resources::FILE))
            .collect::<Vec<_>>()
    };
    let mut lines = only('-', there, built);
    lines.extend(only('+', built, there));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_shown() {
        assert_eq!(bytes_differ("a", b"123", b"123"), None);
        assert_eq!(
            bytes_differ("a", b"123", b"1245").unwrap(),
            "a: 3 bytes are checked in, 4 are built; the first 2 are the same"
        );
        assert_eq!(
            lines_differ("x 1\ny 2\n", "x 1\ny 3\n"),
            ["resources.txt: - y 2", "resources.txt: + y 3"]
        );
    }
}
