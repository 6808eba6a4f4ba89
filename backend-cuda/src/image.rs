//! What is embedded: the compiled kernels, and their sources for where none of them can be loaded.
//! `lora-pro-cuda-kernels build` makes the images; its `check` compares them.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::ZlibDecoder;

/// Compiled kernels.
pub(crate) struct Image {
    /// What it is, as in `cubin sm_90`.
    pub(crate) name: &'static str,
    packed: &'static [u8],
    /// The device for which it was compiled.
    capability: (i32, i32),
    /// Whether the driver compiles it once more, for newer devices too.
    portable: bool,
}

impl Image {
    /// Machine code runs on its own generation, from its own version on; PTX on all later ones.
    fn suits(&self, (major, minor): (i32, i32)) -> bool {
        if self.portable {
            return self.capability <= (major, minor);
        }
        self.capability.0 == major && self.capability.1 <= minor
    }

    /// Most of an image is zeros and names: it is embedded compressed.
    pub(crate) fn unpack(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        ZlibDecoder::new(self.packed)
            .read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

macro_rules! image {
    ($name:literal, $file:literal, $capability:expr, $portable:literal) => {
        Image {
            name: $name,
            packed: include_bytes!(concat!("../images/lora_pro.", $file, ".z")),
            capability: $capability,
            portable: $portable,
        }
    };
}

/// PTX is the last: it takes seconds to compile, and a driver that knows its version.
static IMAGES: [Image; 4] = [
    image!("cubin sm_80", "sm_80.cubin", (8, 0), false),
    image!("cubin sm_90", "sm_90.cubin", (9, 0), false),
    image!("cubin sm_100", "sm_100.cubin", (10, 0), false),
    image!("PTX compute_80", "compute_80.ptx", (8, 0), true),
];

/// The least that the kernels run on: they use f64 tensor cores.
pub(crate) const LEAST: (i32, i32) = (8, 0);

/// The images that a device of this compute capability can load, the best one first.
pub(crate) fn choose(capability: (i32, i32)) -> impl Iterator<Item = &'static Image> {
    IMAGES.iter().filter(move |image| image.suits(capability))
}

/// What the kernels use, a line for each and every target; the first word is the kernel's name.
static RESOURCES: &str = include_str!("../kernels/resources.txt");

/// The names of all kernels.
pub(crate) fn kernels() -> BTreeSet<&'static str> {
    let lines = RESOURCES.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../kernels/", $name)))),*]
    };
}

/// The files of `kernels`, by the names under which they include each other; the first is the one
/// that is compiled.
pub(crate) static SOURCES: &[(&str, &str)] = sources![
    "all.cu",
    "adam.cuh",
    "apply.cu",
    "block.cuh",
    "closed_form.cuh",
    "constants.cuh",
    "eigen.cuh",
    "factored.cu",
    "form.cu",
    "fp8.cuh",
    "gram.cuh",
    "gram_pass.cu",
    "layout.cu",
    "matrix.cuh",
    "memory.cu",
    "model.cuh",
    "number.cuh",
    "param.cu",
    "platform.cuh",
    "product.cuh",
    "report.cu",
    "solve.cu",
    "tile.cuh",
    "wide.cu",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(major: i32, minor: i32) -> Vec<&'static str> {
        choose((major, minor)).map(|image| image.name).collect()
    }

    #[test]
    fn machine_code_comes_first_and_ptx_last() {
        let ptx = "PTX compute_80";
        assert_eq!(chosen(8, 0), ["cubin sm_80", ptx]);
        assert_eq!(chosen(8, 9), ["cubin sm_80", ptx]);
        assert_eq!(chosen(9, 0), ["cubin sm_90", ptx]);
        assert_eq!(chosen(10, 3), ["cubin sm_100", ptx]);
        assert_eq!(chosen(12, 0), [ptx]);
        assert!(chosen(7, 5).is_empty());
    }

    #[test]
    fn machine_code_is_machine_code() {
        for image in IMAGES.iter().filter(|image| !image.portable) {
            assert!(
                image.unpack().unwrap().starts_with(b"\x7fELF"),
                "{}",
                image.name
            );
        }
    }

    #[test]
    fn the_table_names_what_the_ptx_declares() {
        let ptx = String::from_utf8(IMAGES[3].unpack().unwrap()).unwrap();
        let declared: BTreeSet<&str> = ptx
            .lines()
            .filter_map(|line| line.strip_prefix(".visible .entry ")?.split('(').next())
            .collect();
        assert_eq!(kernels(), declared);
        assert!(!declared.is_empty());
    }

    #[test]
    fn every_source_is_embedded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels");
        let names = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        for name in names.filter(|name| name.ends_with(".cu") || name.ends_with(".cuh")) {
            let known = SOURCES.iter().any(|source| source.0 == name);
            assert!(known, "kernels/{name} is not in the list `SOURCES`");
        }
    }
}
