// Tiles: `width` columns of thin matrices in shared memory, in the type of computation. What
// reaches past the last column is zero. Strides and storage types are dealt with on the way in and
// out, and nowhere else.
//
// Every block has tiles of r rows, one below the other:
//     0  a result
//     1  F
//     2  G, or the momentum
//     3, 4  moments, in the pass that needs them
#pragma once
#include "number.cuh"
#include "platform.cuh"

// FloatMoments between the rows of a tile: four more than a multiple of 32, so that eight rows by four
// columns lie in different banks.
DEVICE int tile_ld(const Adapter& adapter) { return adapter.width + TILE_PAD; }

template <class T> struct Tiles {
    T* at;
    int r, width, ld;
    // Row i of all of them.
    DEVICE T* row(int i) const { return at + i * ld; }
    DEVICE T* result() const { return row(0); }
    DEVICE T* f() const { return row(r); }
    DEVICE T* g() const { return row(2 * r); }
    DEVICE T* moment(int k) const { return row((3 + k) * r); }
    // What is left of shared memory behind so many tiles.
    DEVICE void* rest(int tiles = 3) const { return row(tiles * r); }
};

template <class T> DEVICE Tiles<T> tiles_of(const Adapter& adapter, void* shared) {
    return Tiles<T>{static_cast<T*>(shared), adapter.r, adapter.width, tile_ld(adapter)};
}

// A block's share of a thin pass: a chunk of columns of one side of an adapter.
template <class T> struct Chunk {
    Task task;
    const Adapter& adapter;
    const Side& side;
    Tiles<T> tiles;
    int start, end;  // its columns
};

template <class T> DEVICE Chunk<T> chunk_of(const Launch& launch, void* shared) {
    Task task = launch.tasks[blockIdx.x];
    const Adapter& adapter = launch.model->adapters[task.item];
    const Side& side = adapter.side[task.side];
    int start = task.chunk * side.chunk;
    int end = min(side.len, start + side.chunk);
    return Chunk<T>{task, adapter, side, tiles_of<T>(adapter, shared), start, end};
}

// Bytes that are moved at once.
constexpr int VECTOR = 16;

template <class Bytes> struct alignas(VECTOR) Vector {
    static constexpr int COUNT = VECTOR / int(sizeof(Bytes));
    Bytes x[COUNT];
};

// How entries of a tile are dealt out to threads: along whichever direction is dense in memory.
struct Place {
    int i, c;
};

// The width is a power of two.
DEVICE Place by_rows(int e, int width) { return Place{e >> (31 - __clz(width)), e & (width - 1)}; }
DEVICE Place by_columns(int e, int r) { return Place{e % r, e / r}; }
DEVICE void next_in_columns(Place& place, int r) {
    if (++place.i < r) return;
    place.i = 0;
    ++place.c;
}

DEVICE bool rows_are_dense(const View& view) { return llabs(view.col) <= llabs(view.row); }

// Columns of the tile that exist.
DEVICE int columns_of(int start, int width, int len) { return max(0, min(width, len - start)); }

// f32 into a tile of f32: asynchronous, so that all of a block's loads are on their way at once.
DEVICE void start_copies(const View& view, int r, int start, int count, int width, float* tile, int ld) {
    const float* base = reinterpret_cast<const float*>(view.at);
    if (view.contiguity == BY_ROWS) {
#pragma unroll 1
        for (int e = threadIdx.x * 4; e < r * width; e += BLOCK * 4) {
            Place place = by_rows(e, width);
            const float* from = base + place.i * view.row + start + place.c;
            float* to = tile + place.i * ld + place.c;
            if (place.c + 4 <= count) {
                copy_async<16>(to, from);
                continue;
            }
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                if (place.c + k < count) copy_async<4>(to + k, from + k);
                else to[k] = 0.0f;
            }
        }
        return;
    }
#pragma unroll 4
    for (int e = threadIdx.x; e < r * width; e += BLOCK) {
        Place place = by_columns(e, r);
        float* to = tile + place.i * ld + place.c;
        if (place.c < count) copy_async<4>(to, base + i64(start) * r + e);
        else *to = 0.0f;
    }
}

template <class T, class S>
DEVICE void load_vectors(const View& view, int r, int start, int count, int width, T* tile, int ld) {
    typedef typename S::Bytes Bytes;
    typedef Vector<Bytes> V;
    const Bytes* base = global(reinterpret_cast<const Bytes*>(view.at));
    if (view.contiguity == BY_ROWS) {
        for (int e = threadIdx.x * V::COUNT; e < r * width; e += BLOCK * V::COUNT) {
            Place place = by_rows(e, width);
            const Bytes* from = base + place.i * view.row + start + place.c;
            T* to = tile + place.i * ld + place.c;
            if (place.c + V::COUNT <= count) {
                V v = *reinterpret_cast<const V*>(from);
#pragma unroll
                for (int k = 0; k < V::COUNT; ++k) to[k] = T(S::widen(v.x[k]));
            } else {
#pragma unroll
                for (int k = 0; k < V::COUNT; ++k)
                    to[k] = place.c + k < count ? T(S::widen(from[k])) : T(0);
            }
        }
        return;
    }
    // Columns follow one another: the tile is one run of memory.
    const Bytes* from = base + i64(start) * r;
    for (int e = threadIdx.x * V::COUNT; e < r * width; e += BLOCK * V::COUNT) {
        V v = {};
        if (e + V::COUNT <= r * count) v = *reinterpret_cast<const V*>(from + e);
#pragma unroll
        for (int k = 0; k < V::COUNT; ++k)
            if (e + V::COUNT > r * count && e + k < r * count) v.x[k] = from[e + k];
        Place place = by_columns(e, r);
#pragma unroll
        for (int k = 0; k < V::COUNT; ++k) {
            if (place.c < width) tile[place.i * ld + place.c] = T(S::widen(v.x[k]));
            next_in_columns(place, r);
        }
    }
}

DEVICE void start_copies(const View&, int, int, int, int, double*, int) {}

// Columns `start` and on of a matrix of r rows and `len` columns; complete for the thread itself after
// `wait_async<0>`. What is computed in f64 is read number by number.
template <class T>
DEVICE_LARGE void load_tile(View view, int r, int len, int start, int width, T* tile, int ld) {
    int count = columns_of(start, width, len);
    if (sizeof(T) == 4 && view.contiguity != SCATTERED) {
        switch (view.dtype) {
        case F32: start_copies(view, r, start, count, width, tile, ld); return;
        case BF16: load_vectors<T, Stored16b>(view, r, start, count, width, tile, ld); return;
        case F16: load_vectors<T, Stored16h>(view, r, start, count, width, tile, ld); return;
        }
    }
    bool rows = rows_are_dense(view);
#pragma unroll 1
    for (int e = threadIdx.x; e < r * width; e += BLOCK) {
        Place place = rows ? by_rows(e, width) : by_columns(e, r);
        i64 at = place.i * view.row + i64(start + place.c) * view.col;
        tile[place.i * ld + place.c] = place.c < count ? load<T>(view.at, at, view.dtype) : T(0);
    }
}

// A panel or state: row-major, with rows of `ld` numbers.
template <class T> DEVICE View panel_view(void* at, int ld) {
    return View{static_cast<char*>(at), ld, 1, sizeof(T) == 8 ? F64 : F32, BY_ROWS};
}

// As `load_tile`, of a panel or state, which is zero beyond `len`.
template <class T>
DEVICE_LARGE void load_panel(const void* panel, int from_ld, int r, int len, int start, int width, T* tile,
                             int ld) {
    typedef Vector<T> V;
    int count = columns_of(start, width, len);
#pragma unroll 1
    for (int e = threadIdx.x * V::COUNT; e < r * width; e += BLOCK * V::COUNT) {
        Place place = by_rows(e, width);
        V* to = reinterpret_cast<V*>(tile + place.i * ld + place.c);
        const T* from = static_cast<const T*>(panel) + i64(place.i) * from_ld + start + place.c;
        if (place.c < count) copy_async<VECTOR>(to, from);
        else *to = V{};
    }
}

// Puts the master copy in F's place, where there is one and F is its rounding.
template <class T> DEVICE_LARGE void merge_master(const Side& side, const Tiles<T>& tiles, int start) {
    if (side.master == nullptr) return;
    int count = columns_of(start, tiles.width, side.len);
    for (int e = threadIdx.x; e < tiles.r * tiles.width; e += BLOCK) {
        Place place = by_rows(e, tiles.width);
        if (place.c >= count) continue;
        T* x = tiles.f() + place.i * tiles.ld + place.c;
        *x = prefer_master(*x, side.master[i64(place.i) * side.ld + start + place.c], side.f.dtype);
    }
    __syncthreads();
}

// Waits until all that the block has started to load is there.
DEVICE void finish_loads() {
    commit_async();
    wait_async<0>();
    __syncthreads();
}

// Starts to load F and g; only F, where g is nowhere.
template <class T>
DEVICE_LARGE void start_side(const Side& side, View g, const Tiles<T>& tiles, int start) {
#pragma unroll 1
    for (int k = 0; k < (g.at == nullptr ? 1 : 2); ++k)
        load_tile(k == 0 ? side.f : g, tiles.r, side.len, start, tiles.width, tiles.row((1 + k) * tiles.r),
                  tiles.ld);
}

// Loads F and g; F through its master copy, where there is one. Ends in a barrier.
template <class T> DEVICE void load_side(const Side& side, View g, const Tiles<T>& tiles, int start) {
    start_side(side, g, tiles, start);
    finish_loads();
    merge_master(side, tiles, start);
}

// Writes F, and its master copy where there is one: then the parameter is the copy's rounding.
template <class T>
DEVICE_LARGE void store_factor(const Side& side, const T* tile, int r, int start, int width, int ld,
                              Round round) {
    int count = columns_of(start, width, side.len);
    bool rows = rows_are_dense(side.f);
    bool vectors = side.f.dtype == F32 && sizeof(T) == 4;
    typedef Vector<float> V;
    if (vectors && side.f.contiguity == BY_COLUMNS) {
        float* to = global(reinterpret_cast<float*>(side.f.at)) + i64(start) * r;
        for (int e = threadIdx.x * V::COUNT; e < r * count; e += BLOCK * V::COUNT) {
            V v;
            Place place = by_columns(e, r);
#pragma unroll
            for (int k = 0; k < V::COUNT; ++k) {
                v.x[k] = place.c < count ? float(tile[place.i * ld + place.c]) : 0.0f;
                next_in_columns(place, r);
            }
            if (e + V::COUNT <= r * count) *reinterpret_cast<V*>(to + e) = v;
#pragma unroll
            for (int k = 0; k < V::COUNT; ++k)
                if (e + V::COUNT > r * count && e + k < r * count) to[e + k] = v.x[k];
        }
        return;
    }
    if (vectors && side.f.contiguity == BY_ROWS && count == width) {
        for (int e = threadIdx.x * V::COUNT; e < r * width; e += BLOCK * V::COUNT) {
            Place place = by_rows(e, width);
            float* to = global(reinterpret_cast<float*>(side.f.at)) + place.i * side.f.row + start + place.c;
            *reinterpret_cast<V*>(to) = *reinterpret_cast<const V*>(tile + place.i * ld + place.c);
        }
        return;
    }
    for (int e = threadIdx.x; e < r * width; e += BLOCK) {
        Place place = rows ? by_rows(e, width) : by_columns(e, r);
        if (place.c >= count) continue;
        int column = start + place.c;
        T x = tile[place.i * ld + place.c];
        if (side.master != nullptr) {
            float kept = float(x);
            side.master[i64(place.i) * side.ld + column] = kept;
            x = T(kept);
        }
        i64 at = place.i * side.f.row + i64(column) * side.f.col;
        store(side.f.at, at, side.f.dtype, x, round, u64(place.i) * side.len + column);
    }
}
