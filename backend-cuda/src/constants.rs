//! The numbers that kernels and host share, read from the kernels' text when this crate is compiled:
//! the host has no copy that could drift. A name that is not there is a compile error.

use lora_pro_core::backend::{MOMENT_BLOCK, NULL_EIGENVALUE as CORE_NULL_EIGENVALUE};

const TEXT: &[u8] = include_bytes!("../kernels/constants.cuh");

/// The number behind `NAME = `.
const fn constant(name: &str) -> u32 {
    let name = name.as_bytes();
    let mut at = 1;
    while at + name.len() + 3 < TEXT.len() {
        if is_definition(at, name) {
            return digits(at + name.len() + 3);
        }
        at += 1;
    }
    panic!("kernels/constants.cuh has no such constant")
}

/// Whether `NAME = ` stands here, as a whole word.
const fn is_definition(at: usize, name: &[u8]) -> bool {
    let mut k = 0;
    while k < name.len() {
        if TEXT[at + k] != name[k] {
            return false;
        }
        k += 1;
    }
    let before = TEXT[at - 1];
    let starts = before == b' ' || before == b'\n';
    let end = at + name.len();
    starts && TEXT[end] == b' ' && TEXT[end + 1] == b'=' && TEXT[end + 2] == b' '
}

const fn digits(mut at: usize) -> u32 {
    assert!(TEXT[at].is_ascii_digit(), "a constant is digits alone");
    let mut value = 0;
    while TEXT[at].is_ascii_digit() {
        value = 10 * value + (TEXT[at] - b'0') as u32;
        at += 1;
    }
    value
}

macro_rules! constants {
    ($type:ty: $($name:ident)+) => {
        $(pub(crate) const $name: $type = constant(stringify!($name)) as $type;)+
    };
}

constants! { usize:
    BLOCK ROW_ALIGNMENT TILE_PAD SUM_ROOM SHARED_EIGEN MAX_RANK NULL_EIGENVALUE
    OCTET GRAM CHUNK_ENTRIES COEFFICIENTS MATRICES MATRICES_FACTORED QUANT_ROWS QUANT_COLUMNS
    STRIP WIDE_ROWS R8_WARP_ROWS R8_RANKS R32_WARP_ROWS R32_RANKS F64_WARP_ROWS F64_RANKS
    QUANT_WARP_ROWS QUANT_RANKS
}

#[cfg(test)]
constants! { usize: MAX_SHARED }

// The kernels' enums.
constants! { i32:
    F64 F32 BF16 F16 U8
    LORA SGD EFFICIENT FACTORED FULL
    SYLVESTER SYMMETRIC ZERO
    NONE ABSOLUTE RELATIVE CUTOFF
    SCATTERED BY_ROWS BY_COLUMNS
}

// Bits.
constants! { u32: NOT_FINITE MAY_OVERFLOW }

/// Warps of a block.
pub(crate) const WARPS: usize = BLOCK / 32;

const _: () = assert!(MOMENT_BLOCK[0] == QUANT_ROWS && MOMENT_BLOCK[1] == QUANT_COLUMNS);
const _: () = assert!(NULL_EIGENVALUE as f64 == CORE_NULL_EIGENVALUE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_what_the_header_says() {
        assert_eq!([BLOCK, STRIP, WIDE_ROWS], [256, 256, 480]);
        assert_eq!([R8_RANKS, QUANT_WARP_ROWS, QUANT_RANKS], [8, 6, 8]);
        assert_eq!([LORA, SGD, EFFICIENT, FACTORED, FULL], [0, 1, 2, 3, 4]);
        assert_eq!([NOT_FINITE, MAY_OVERFLOW], [1, 2]);
    }
}
