// RankMatrix matrices in f64: r x r, row-major, one block of threads to each operation. Every operation
// ends in a barrier, so that the next may read what it wrote.
//
// Matrices are named by their numbers (RankMatrix), and not by their addresses: a long row of formulas
// would otherwise keep a register for each of them.
#pragma once
#include "block.cuh"

// A matrix that is read, perhaps as its transpose.
struct Operand {
    int which;
    bool transposed;
};

DEVICE Operand of(int which) { return Operand{which, false}; }
DEVICE Operand transposed(int which) { return Operand{which, true}; }

// The r x r matrices of an adapter.
struct RankMatrices {
    double* base;
    int r;
    DEVICE RankMatrices(const Adapter& adapter) : base(adapter.rank_matrices), r(adapter.r) {}
    DEVICE double* operator()(int which) const { return global(base) + i64(which) * r * r; }
    DEVICE double get(Operand x, int i, int j) const {
        return x.transposed ? (*this)(x.which)[j * r + i] : (*this)(x.which)[i * r + j];
    }
    DEVICE double* values(int row) const { return (*this)(VALUES) + row * r; }
};

// out = factor x y, or out += factor x y. `out` is neither x nor y.
DEVICE_LEAF void multiply(RankMatrices m, int out, double factor, Operand x, Operand y, bool add = false) {
#pragma unroll 1
    for (int at = threadIdx.x; at < m.r * m.r; at += BLOCK) {
        int i = at / m.r, j = at % m.r;
        double sum = 0.0;
#pragma unroll 4
        for (int k = 0; k < m.r; ++k) sum = fma(m.get(x, i, k), m.get(y, k, j), sum);
        m(out)[at] = factor * sum + (add ? m(out)[at] : 0.0);
    }
    __syncthreads();
}

// out = a x + b y; out may be x or y where they are not transposed.
DEVICE_LEAF void combine(RankMatrices m, int out, double a, Operand x, double b, Operand y) {
#pragma unroll 1
    for (int at = threadIdx.x; at < m.r * m.r; at += BLOCK) {
        int i = at / m.r, j = at % m.r;
        m(out)[at] = a * m.get(x, i, j) + b * m.get(y, i, j);
    }
    __syncthreads();
}

// out = factor x; 0 where the factor is 0, whatever x is.
DEVICE_LEAF void assign(RankMatrices m, int out, double factor, Operand x) {
#pragma unroll 1
    for (int at = threadIdx.x; at < m.r * m.r; at += BLOCK)
        m(out)[at] = factor == 0.0 ? 0.0 : factor * m.get(x, at / m.r, at % m.r);
    __syncthreads();
}

// The sum of the products of all entries; every thread gets it.
DEVICE_LEAF double dot(RankMatrices m, Operand x, Operand y, double* room) {
    double sum = 0.0;
#pragma unroll 1
    for (int at = threadIdx.x; at < m.r * m.r; at += BLOCK)
        sum = fma(m.get(x, at / m.r, at % m.r), m.get(y, at / m.r, at % m.r), sum);
    return block_sum(sum, room);
}

DEVICE double norm(RankMatrices m, int x, double* room) { return sqrt(dot(m, of(x), of(x), room)); }

DEVICE_LEAF double trace(RankMatrices m, int x, double* room) {
    double sum = 0.0;
#pragma unroll 1
    for (int i = threadIdx.x; i < m.r; i += BLOCK) sum += m(x)[i * m.r + i];
    return block_sum(sum, room);
}

// factor x as coefficients: transposed, in the type of the thin passes.
template <class T> DEVICE_LEAF void set_coefficients(RankMatrices m, T* out, double factor, Operand x) {
    int ld = (m.r + 7) / 8 * 8;
#pragma unroll 1
    for (int at = threadIdx.x; at < m.r * m.r; at += BLOCK) {
        int k = at / m.r, i = at % m.r;
        out[k * ld + i] = T(factor == 0.0 ? 0.0 : factor * m.get(x, i, k));
    }
    __syncthreads();
}
