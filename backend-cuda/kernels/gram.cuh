// Products X Y' of tiles, summed over columns in f64 by the tensor cores, eight by eight entries at
// a time:
//
//     out[i][j] += sum_c w_c x[i][c] y[j][c]
//
// One warp holds eight by eight sums. Where there are fewer such squares than warps, `sharers` warps
// share each, and warp k takes every `sharers`-th group of columns from the k-th on. Their sums stand
// in memory one after another; `sum_of_chunks` adds them.
#pragma once
#include "tile.cuh"

// How the products of `rows` by `cols` entries are cut up.
struct Squares {
    int down, across, count, sharers;
};

DEVICE Squares squares_of(int rows, int cols) {
    Squares squares;
    squares.down = (rows + GRAM - 1) / GRAM;
    squares.across = (cols + GRAM - 1) / GRAM;
    squares.count = squares.down * squares.across;
    squares.sharers = squares.count < WARPS ? WARPS / squares.count : 1;
    return squares;
}

// FloatMoments that one chunk leaves in memory.
DEVICE i64 products_of(const Squares& squares) { return i64(squares.count) * squares.sharers * GRAM * GRAM; }

// x and y are tiles of `rows` and `cols` rows. With `symmetric`, squares below the diagonal are left
// out. `starts`: the sums start here, else they go on.
template <class T>
DEVICE_LARGE void gram(const T* x, int rows, const T* y, int cols, const T* weights, bool symmetric,
                      int width, int ld, double* out, bool starts) {
    Squares squares = squares_of(rows, cols);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int row = lane / 4, column = lane % 4;
    for (int at = warp; at < squares.count * squares.sharers; at += WARPS) {
        int square = at % squares.count, sharer = at / squares.count;
        int p = square / squares.across, q = square % squares.across;
        if (symmetric && p > q) continue;
        int i = p * 8 + row, j = q * 8 + row;
        double sums[2] = {0.0, 0.0};
        for (int c = 4 * sharer + column; c < width; c += 4 * squares.sharers) {
            T a = i < rows ? x[i * ld + c] : T(0);
            T b = j < cols ? y[j * ld + c] : T(0);
            if (weights != nullptr) a *= weights[c];
            mma_f64(sums, double(a), double(b));
        }
        double* to = global(out) + i64(at) * 64 + row * 8 + column * 2;
        to[0] = starts ? sums[0] : to[0] + sums[0];
        to[1] = starts ? sums[1] : to[1] + sums[1];
    }
}

// Entry (i, j) of what `chunks` chunks left.
DEVICE double sum_of_chunks(const double* products, const Squares& squares, int chunks, bool symmetric,
                       int i, int j) {
    if (symmetric && i / 8 > j / 8) {
        int other = i;
        i = j;
        j = other;
    }
    const double* from = global(products) + (i / 8 * squares.across + j / 8) * 64 + i % 8 * 8 + j % 8;
    double sum = 0.0;
    for (int k = 0; k < chunks * squares.sharers; ++k) sum += from[i64(k) * squares.count * 64];
    return sum;
}
