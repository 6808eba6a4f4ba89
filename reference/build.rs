//! Tells crates that measure test suites with this one where its source is.

fn main() {
    println!("cargo::metadata=src={}/src", env!("CARGO_MANIFEST_DIR"));
    println!("cargo::rerun-if-changed=build.rs");
}
