// Every number that kernels and host share. The host reads them from this very text when it is
// compiled (`src/constants.rs`) and has no copy of its own; it understands `NAME = digits` alone.
#pragma once

constexpr int BLOCK = 256;  // threads of every block

// Memory.
constexpr int ROW_ALIGNMENT = 8;     // rows of panels and states are padded to a multiple of this
constexpr int TILE_PAD = 4;          // numbers between the rows of a tile: see `tile_ld`
constexpr int MAX_SHARED = 101376;   // 99 KiB: what a block gets on every device since 8.0
constexpr int SUM_ROOM = 32;         // doubles of shared memory for the sums of a block
constexpr int SHARED_EIGEN = 48;     // largest rank whose decomposition is kept in shared memory
constexpr int MAX_RANK = 256;

// An eigenvalue below this many roundings of its matrix counts as 0: core's NULL_EIGENVALUE.
constexpr int NULL_EIGENVALUE = 100;

// Work.
constexpr int OCTET = 8;             // rows of one column that a thread of a thin pass has
constexpr int GRAM = 8;              // rows and columns of a warp's square of a product X Y'
constexpr int CHUNK_ENTRIES = 4096;  // entries of a parameter or of W0 that a block visits
constexpr int COEFFICIENTS = 6;      // coefficient matrices of a side
constexpr int MATRICES = 33;         // r x r matrices of an adapter in f64: see RankMatrix
constexpr int MATRICES_FACTORED = 43;

// 8-bit moments share a scale in blocks of this shape.
constexpr int QUANT_ROWS = 6, QUANT_COLUMNS = 64;

// The wide pass: a block goes down WIDE_ROWS rows of a strip. Its kernels differ in the rows that a
// warp has at once (WARP_ROWS) and the rows of B'N that a thread keeps in registers (RANKS); why
// these, stands beside each kernel in wide.cu.
constexpr int STRIP = 256, WIDE_ROWS = 480;
constexpr int R8_WARP_ROWS = 2, R8_RANKS = 8;
constexpr int R32_WARP_ROWS = 3, R32_RANKS = 32;
constexpr int F64_WARP_ROWS = 2, F64_RANKS = 16;
constexpr int QUANT_WARP_ROWS = 6, QUANT_RANKS = 8;

// What core's enums are called here.
enum DType : int { F64 = 0, F32 = 1, BF16 = 2, F16 = 3, U8 = 4 };
enum Method : int { LORA = 0, SGD = 1, EFFICIENT = 2, FACTORED = 3, FULL = 4 };
enum XChoice : int { SYLVESTER = 0, SYMMETRIC = 1, ZERO = 2 };
enum Damping : int { NONE = 0, ABSOLUTE = 1, RELATIVE = 2, CUTOFF = 3 };

// How a view may be read sixteen bytes at a time.
enum Contiguity : int {
    SCATTERED = 0,  // not at all
    BY_ROWS = 1,    // rows are contiguous and aligned
    BY_COLUMNS = 2  // columns follow one another without gaps, aligned
};

// Why a step may change nothing: bits.
enum Rejection : unsigned int {
    NOT_FINITE = 1,   // an entry that came in is not finite
    MAY_OVERFLOW = 2  // an entry that comes out might not be finite
};
