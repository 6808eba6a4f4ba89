//! Writes the generated vectors and the index:
//! `cargo run --release -p lora-pro-conformance --example vectors`.
//!
//! A file that already says what it should is left as it is, so that another machine's last bits
//! change nothing. Files without an entry are named, not removed.

use lora_pro_conformance::vectors::{catalogue, folder, generate};

fn main() -> Result<(), String> {
    let folder = folder();
    for vector in catalogue::all() {
        let path = folder.join(vector.file());
        let old = generate::VectorFile::read(&path);
        if old.is_ok_and(|old| generate::same(&vector, &old).is_ok()) {
            continue;
        }
        let new = generate::parts(&vector).map_err(|reason| format!("{}: {reason}", vector.id))?;
        new.write(&path).map_err(|error| error.to_string())?;
        println!("written: {}", vector.file());
    }
    let index = generate::index()?;
    index.write(&folder).map_err(|error| error.to_string())?;
    for file in index
        .unlisted_files(&folder)
        .map_err(|error| error.to_string())?
    {
        println!("not in the index: {file}");
    }
    Ok(())
}
