// D = C X for a small matrix C and a tile X: a thread has eight rows of one column.
#pragma once
#include "tile.cuh"

DEVICE int octets(int r) { return (r + OCTET - 1) / OCTET; }
DEVICE int coefficient_ld(int r) { return octets(r) * OCTET; }

// Octets of a tile, dealt out to threads: neighbours in a warp have neighbouring columns.
DEVICE int octet_count(int r, int width) { return octets(r) * width; }

struct Octet {
    int c, i;  // its column, and its first row
    DEVICE Octet(int at, int width) {
        Place place = by_rows(at, width);
        c = place.c;
        i = place.i * OCTET;
    }
};

template <class T> DEVICE T* coefficients(const Adapter& adapter, int side, int which) {
    int ld = coefficient_ld(adapter.r);
    return global(static_cast<T*>(adapter.coefficients)) + i64(side * COEFFICIENTS + which) * adapter.r * ld;
}

// d += C x, for rows `i` to `i + 7` of C and column `c` of the tile x.
template <class T>
DEVICE void add_product(T (&d)[OCTET], const T* matrix, const T* x, int i, int c, int r, int ld) {
    typedef Vector<T> V;
    int across = coefficient_ld(r);
#pragma unroll 2
    for (int k = 0; k < r; ++k) {
        T value = x[k * ld + c];
        const V* row = reinterpret_cast<const V*>(matrix + k * across + i);
#pragma unroll
        for (int part = 0; part < OCTET / V::COUNT; ++part) {
            V by = row[part];
#pragma unroll
            for (int a = 0; a < V::COUNT; ++a)
                d[part * V::COUNT + a] = fma(by.x[a], value, d[part * V::COUNT + a]);
        }
    }
}
