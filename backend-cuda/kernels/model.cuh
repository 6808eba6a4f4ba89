// What the host tells the kernels: one description of the model, which stays on the device. Every
// structure has a host mirror in src/model.rs; a test compares where each field lies (layout.cu).
//
// Side 0 of an adapter is A (F = A, G = gA), side 1 is B transposed (F = B', G = gB'). Both are
// r x len: len = n for side 0 and m for side 1.
#pragma once
#include "constants.cuh"

typedef unsigned long long u64;
typedef long long i64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

// A matrix in memory; strides in elements.
struct View {
    char* at;
    i64 row, col;
    int dtype, contiguity;
};

struct Hyper {
    double lr, lr_ratio, beta1, beta2, eps, weight_decay, momentum, damping;
    double update_clip;  // 0 where there is none
    int method, x, damping_kind, maximize, stochastic, in_f64;
};

// Memory of one side. T is float, or double where the adapter is computed in f64. Panels of ours are
// row-major, r x len with rows of `ld` numbers, and zero beyond len.
//
// A loop copies what it needs of a side before it starts: after a store the compiler would read it
// again, since it cannot know that the store went elsewhere.
struct Side {
    View f, g;
    void* first;      // T: moments, momentum, or the factored mode's Y
    void* second;     // T; the factored mode's means, 1 x len
    void* largest;    // T; null without AMSGrad
    float* master;    // null without master copies
    void* old;        // factored, T: F before the step
    void* updated;    // factored, T: F after it
    void* weights;    // factored, T: 1 x len
    void* panel;      // full, T: 2r x len, the side's part of E
    void* parts;      // full, T: `part_count` panels, partial sums of the side's part of N
    void* gradient;   // full, T: their sum
    double* products; // partial sums of products, one set for each chunk
    double* squares;  // one number for each chunk
    double* backup;   // r x len: F before a step that may overflow; else null
    int len, ld;
    int chunk, chunk_count;  // columns that one block visits; how many such chunks there are
    int part_count, pad;
};

// What one adapter's step goes by: left by `solve_gradients`, read by everything after.
struct Step {
    double gamma;     // what multiplies raw gradients
    double lr[2], decay[2], base_decay;
    double c1, c2;    // bias corrections 1 - beta^t
    double k, eps;    // Adam: N = k M / (sqrt(V) + eps)
    double clip;      // the update clip
    u64 t;
};

struct Report {
    double factor_square[2], gradient_square[2];  // squares of norms, as handed in
    double update_norm[2];
    double equivalent_norm, clip;
    u64 step;
    u32 rejected, pad;  // bits of Rejection
};

struct Adapter {
    Side side[2];
    Hyper hyper;
    Step step;
    double s;
    View base;         // W0, m x n; null where it is not decayed
    void* wide[3];     // full: the moments and the largest second one, m x n
    float* scales[3];  // full, 8-bit: one scale for each block
    double* rank_matrices;  // r x r: see RankMatrix
    // T: COEFFICIENTS matrices for each side, transposed. Entry (k, i) multiplies row k of the operand
    // for row i of the result; rows have `coefficient_ld` numbers, zero beyond r.
    void* coefficients;
    Report* report;
    u64* counter;  // steps taken
    int r, width;  // rank; columns of a tile
    int wide_ld, wide_dtype;
    int wide_rows;  // rows of a task of the wide pass
    u32 name;       // hash of the adapter's name
};

// An unpaired parameter, rows x cols.
struct Param {
    View value, grad;
    Hyper hyper;
    void* first;  // T, row-major
    void* second;
    void* largest;
    float* master;
    double* squares;  // two numbers for each chunk: of the value, of the gradient
    double* backup;
    Report* report;
    u64* counter;
    i64 rows, cols, ld;  // moments and master copies have rows of `ld` numbers
    int chunk_count;
    u32 name;
};

struct Control {
    double lr_factor, grad_scale, max_grad_norm;  // 0 where there is no clip
    u32 allow_overflow, pad;  // go on though a number might overflow
};

struct Status {
    double grad_norm, grad_clip;
    u32 rejected;    // reasons of the step that goes on: bits of Rejection
    u32 unreported;  // reasons of earlier steps, until the host reads them
    u32 unreported_steps, pad;
};

struct Model {
    Adapter* adapters;
    Param* params;
    Control* control;
    Status* status;
    int adapter_count, param_count;
};

// What one block does.
struct Task {
    u32 item;   // adapter or parameter
    u32 side;
    u32 chunk;
    u32 other;  // a second coordinate
};

// The one argument of every kernel.
struct Launch {
    Model* model;
    Task* tasks;
    double numbers[4];
    u64 words[2];
};

// r x r matrices in f64, row-major.
enum RankMatrix : int {
    FF,                      // F F' of both sides
    FG = FF + 2,             // F G'
    GG = FG + 2,             // G G'
    VECTORS = GG + 2,        // eigenvectors of F F'
    ROOT = VECTORS + 2,      // R of the damped inverse R R'
    PINV = ROOT + 2,         // R R'
    RB_GA_AT = PINV + 2,     // Rb' (gA A')
    RB_BTGB_RA,              // Rb' (B'gB) Ra
    X,
    Q,
    HH,                      // H H' of both sides, with H = R C
    FH = HH + 2,             // F H'
    CC = FH + 2,             // C C'
    FC = CC + 2,             // F C'
    TEMPORARY = FC + 2,      // five, and two for each side's decomposition
    VALUES = TEMPORARY + 5,  // eigenvalues, two rows for each side (at r = 1 they need four matrices)
    WEIGHTED = VALUES + 4,   // factored: F w [F; Y]' of both sides
    ADVANCED = WEIGHTED + 4, // factored: F1 [F1; F; Y]' of both sides
    RANK_MATRIX_COUNT = ADVANCED + 6
};
static_assert(WEIGHTED == MATRICES && RANK_MATRIX_COUNT == MATRICES_FACTORED);
