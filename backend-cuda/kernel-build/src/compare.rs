//! What was compiled now against what is checked in.

use std::fs;
use std::path::Path;

use crate::compile::Built;
use crate::result::Result;
use crate::{image, resources};

/// Compares everything, byte by byte; an error names what differs, and what to do.
pub fn all(built: &Built, images: &Path, kernels: &Path) -> Result<()> {
    let image = |(name, bytes): &(String, Vec<u8>)| {
        let packed = fs::read(images.join(image::file(name))).map_err(|error| error.to_string());
        let there = packed
            .and_then(|packed| image::unpack(&packed))
            .unwrap_or_default();
        difference(&image::file(name), &there, bytes)
    };
    let table = fs::read(kernels.join(resources::FILE)).unwrap_or_default();
    let table = difference(resources::FILE, &table, built.table.as_bytes());
    let different: Vec<String> = built.images.iter().filter_map(image).chain(table).collect();
    if different.is_empty() {
        println!(
            "{} images and their table are as checked in",
            built.images.len()
        );
        return Ok(());
    }
    Err(format!(
        "what is checked in is not what the sources give:\n{}\nThis makes it anew:\n  \
         cargo run --release -p lora-pro-cuda-kernels -- build",
        different.join("\n")
    ))
}

fn difference(name: &str, there: &[u8], built: &[u8]) -> Option<String> {
    let same = there
        .iter()
        .zip(built)
        .take_while(|(there, built)| there == built);
    let sizes = format!(
        "{} bytes are checked in, {} are built",
        there.len(),
        built.len()
    );
    (there != built).then(|| format!("{name}: {sizes}; the first {} are the same", same.count()))
}

#[test]
fn differences_are_told() {
    assert_eq!(difference("a", b"123", b"123"), None);
    let told = "a: 3 bytes are checked in, 4 are built; the first 2 are the same";
    assert_eq!(difference("a", b"123", b"1245").unwrap(), told);
}
