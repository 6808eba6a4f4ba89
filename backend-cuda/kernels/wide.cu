// Full mode, the pass over what is as large as W: for each entry
//
//     E = sum_q left[q][i] right[q][j]   with left = [B'; sV'], right = [sU; A]
//     M, V <- their averages, N from them
//     B'N and (N A')' from N, at once
//
// The moments are read and written once, and nothing else of their size is touched. A block has a
// strip of 256 columns and goes down its rows; a warp has some whole rows of the strip, a lane eight
// columns of them, and its next moments are on their way while it works.
//
// B'N is summed by the block in registers, one column for each thread, down all its rows; N A' is
// summed across the strip by each warp. Both leave one partial sum for each block.
//
// Task: an adapter, a strip (`chunk`), a group of rows (`other`).
#include "adam.cuh"
#include "block.cuh"
#include "fp8.cuh"
#include "tile.cuh"

static_assert(STRIP == BLOCK);    // a thread sums one column of B'N
constexpr int LANE = STRIP / 32;  // columns of a lane
static_assert(ROW_ALIGNMENT % LANE == 0);  // a lane's columns are all there or none is

// Eight neighbouring numbers, whose pieces of sixteen bytes stand `apart` bytes apart.
template <class T, class S> DEVICE void read_eight(const char* base, int apart, T (&x)[LANE]) {
    typedef Vector<typename S::Bytes> V;
#pragma unroll
    for (int k = 0; k < LANE / V::COUNT; ++k) {
        V v = *reinterpret_cast<const V*>(base + k * apart);
#pragma unroll
        for (int a = 0; a < V::COUNT; ++a) x[k * V::COUNT + a] = T(S::widen(v.x[a]));
    }
}

template <class T> DEVICE void load_eight(const char* base, int apart, int dtype, T (&x)[LANE]) {
    switch (dtype) {
    case F64: read_eight<T, Stored64>(base, apart, x); break;
    case F32: read_eight<T, Stored32>(base, apart, x); break;
    default: read_eight<T, Stored16b>(base, apart, x);
    }
}

template <class Bytes, class T> DEVICE void write_eight(void* base, i64 at, const T (&x)[LANE]) {
    typedef Vector<Bytes> V;
    V* to = reinterpret_cast<V*>(static_cast<Bytes*>(base) + at);
#pragma unroll
    for (int k = 0; k < LANE / V::COUNT; ++k) {
        V v;
#pragma unroll
        for (int a = 0; a < V::COUNT; ++a) v.x[a] = Bytes(x[k * V::COUNT + a]);
        to[k] = v;
    }
}

template <class T> DEVICE void store_eight(void* base, i64 at, int dtype, const T (&x)[LANE]) {
    u16 short_x[LANE];
    switch (dtype) {
    case F64: write_eight<double>(base, at, x); break;
    case F32: write_eight<float>(base, at, x); break;
    default:
#pragma unroll
        for (int a = 0; a < LANE; ++a) short_x[a] = nearest_bf16(to_odd(x[a]));
        write_eight<u16>(base, at, short_x);
    }
}

template <class T> DEVICE void panel_eight(const T* panel, T (&x)[LANE]) {
    load_eight(reinterpret_cast<const char*>(panel), VECTOR, sizeof(T) == 8 ? F64 : F32, x);
}

// The rows and columns of a lane. `inside` is false where its columns are beyond the last one.
struct LaneTile {
    int row, column, rows;
    bool inside;
    DEVICE bool has(int a) const { return inside && a < rows; }
};

// A thread's part of the stage: shared memory into which it copies its next moments while it works on
// those at hand. No other thread reads it, so that no barrier is needed.
DEVICE char* stage_of(char* stage, int piece, int bytes) {
    return stage + (piece * BLOCK + threadIdx.x) * bytes;
}

// One moment of a warp's rows, stored as numbers.
template <class T, int ROWS> struct FloatMoments {
    static constexpr int MAX_SIZE = sizeof(T);  // bytes of a number at most
    char* at;
    int dtype, ld, size, pieces;  // bytes of a number; pieces of sixteen bytes of eight numbers

    DEVICE FloatMoments(const Adapter& adapter, int which)
        : at(global(static_cast<char*>(adapter.wide[which]))), dtype(adapter.wide_dtype), ld(adapter.wide_ld),
          size(dtype == F64 ? 8 : dtype == F32 ? 4 : 2), pieces(LANE * size / VECTOR) {}
    DEVICE int stage_bytes() const { return ROWS * pieces * BLOCK * VECTOR; }
    DEVICE char* place(LaneTile tile, int a) const {
        return at + (i64(tile.row + a) * ld + tile.column) * size;
    }

    DEVICE void start(char* stage, LaneTile tile) const {
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            for (int k = 0; k < pieces && tile.has(a); ++k)
                copy_async<VECTOR>(stage_of(stage, a * pieces + k, VECTOR), place(tile, a) + k * VECTOR);
    }
    // From the stage, or from memory where there is none.
    DEVICE void load(char* stage, LaneTile tile, T (&x)[ROWS][LANE]) const {
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
#pragma unroll
            for (int c = 0; c < LANE; ++c) x[a][c] = 0;
            if (!tile.has(a)) continue;
            if (stage != nullptr) load_eight(stage_of(stage, a * pieces, VECTOR), BLOCK * VECTOR, dtype, x[a]);
            else load_eight(place(tile, a), VECTOR, dtype, x[a]);
        }
    }
    DEVICE void save(LaneTile tile, const T (&x)[ROWS][LANE]) const {
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            if (tile.has(a)) store_eight(place(tile, a), 0, dtype, x[a]);
    }
};

// One moment of a warp's rows, stored as codes with one scale for each 6 by 64 of them: the rows of a
// warp by eight lanes, so that shuffles find the largest entry.
template <class T, int ROWS> struct QuantizedMoments {
    static constexpr int MAX_SIZE = 1;
    static_assert(ROWS == QUANT_ROWS && STRIP % QUANT_COLUMNS == 0 && QUANT_COLUMNS % LANE == 0);
    u8* at;
    float* scales;
    int ld, across;
    Fp8Format code;
    Seed seed;

    DEVICE QuantizedMoments(const Adapter& adapter, int which)
        : at(global(static_cast<u8*>(adapter.wide[which]))), scales(global(adapter.scales[which])),
          ld(adapter.wide_ld), across((adapter.side[0].len + QUANT_COLUMNS - 1) / QUANT_COLUMNS), code(Fp8Format{which > 0}),
          seed(seed_of(adapter.name, 8 + which, adapter.step.t)) {}
    DEVICE int stage_bytes() const { return ROWS * BLOCK * LANE; }
    DEVICE u8* place(LaneTile tile, int a) const { return at + i64(tile.row + a) * ld + tile.column; }
    DEVICE int block(LaneTile tile) const {
        return tile.row / QUANT_ROWS * across + tile.column / QUANT_COLUMNS;
    }

    DEVICE void start(char* stage, LaneTile tile) const {
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            if (tile.has(a)) copy_async<LANE>(stage_of(stage, a, LANE), place(tile, a));
    }
    DEVICE void load(char* stage, LaneTile tile, T (&x)[ROWS][LANE]) const {
        float scale = tile.has(0) ? scales[block(tile)] : 0.0f;
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
            uint2 codes = make_uint2(0, 0);
            if (tile.has(a))
                codes = *reinterpret_cast<const uint2*>(stage == nullptr ? static_cast<void*>(place(tile, a))
                                                                         : stage_of(stage, a, LANE));
#pragma unroll
            for (int c = 0; c < LANE; ++c) {
                u32 word = c < 4 ? codes.x : codes.y;
                x[a][c] = T(code.decode(u8(word >> c % 4 * 8)) * scale);
            }
        }
    }
    DEVICE void save(LaneTile tile, const T (&x)[ROWS][LANE]) const {
        float top = 0.0f;
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
#pragma unroll
            for (int c = 0; c < LANE; ++c) top = nan_max(top, fabsf(float(x[a][c])));
        for (int step = 1; step < QUANT_COLUMNS / LANE; step <<= 1)
            top = nan_max(top, __shfl_xor_sync(0xffffffffu, top, step));
        if (!tile.has(0)) return;
        bool nothing = top < MIN_BLOCK_MAX;
        int number = block(tile);
        if (tile.column % QUANT_COLUMNS == 0) scales[number] = nothing ? 0.0f : top / LARGEST_CODE;
        float inverse = nothing ? 0.0f : LARGEST_CODE / top;
        u64 entry = u64(number) * (QUANT_ROWS * QUANT_COLUMNS) + tile.column % QUANT_COLUMNS;
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
            u32 words[2] = {0, 0};
#pragma unroll
            for (int c = 0; c < LANE; ++c)
                words[c / 4] |= u32(code.encode(float(x[a][c]) * inverse,
                                                seed.at(entry + a * QUANT_COLUMNS + c)))
                                << c % 4 * 8;
            if (tile.has(a)) *reinterpret_cast<uint2*>(place(tile, a)) = make_uint2(words[0], words[1]);
        }
    }
};

// E of a warp's rows.
template <class T, int ROWS>
DEVICE void form_e(const T* left, const T* right, int left_ld, int right_ld, int count, LaneTile tile,
                   T (&e)[ROWS][LANE]) {
#pragma unroll
    for (int a = 0; a < ROWS; ++a)
#pragma unroll
        for (int c = 0; c < LANE; ++c) e[a][c] = 0;
    if (!tile.inside) return;
#pragma unroll 2
    for (int q = 0; q < count; ++q) {
        T x[LANE];
        panel_eight(right + i64(q) * right_ld, x);
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
            T by = a < tile.rows ? left[i64(q) * left_ld + a] : T(0);
#pragma unroll
            for (int c = 0; c < LANE; ++c) e[a][c] = fma(by, x[c], e[a][c]);
        }
    }
}

// The moments after the step, and N in E's place.
template <class T, class Moment, int ROWS>
DEVICE void normalize(const Adapter& adapter, const Adam<T>& adam, const Moment& first,
                      const Moment& second, LaneTile tile, T (&m)[ROWS][LANE], T (&v)[ROWS][LANE], T (&e)[ROWS][LANE]) {
#pragma unroll
    for (int a = 0; a < ROWS; ++a)
#pragma unroll
        for (int c = 0; c < LANE; ++c) {
            m[a][c] = adam.mean(m[a][c], e[a][c]);
            v[a][c] = adam.square(v[a][c], e[a][c]);
        }
    first.save(tile, m);
    second.save(tile, v);
    if (adapter.wide[2] != nullptr) {
        Moment largest(adapter, 2);
        largest.load(nullptr, tile, e);
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
#pragma unroll
            for (int c = 0; c < LANE; ++c) v[a][c] = nan_max(e[a][c], v[a][c]);
        largest.save(tile, v);
    }
#pragma unroll
    for (int a = 0; a < ROWS; ++a)
#pragma unroll
        for (int c = 0; c < LANE; ++c) e[a][c] = tile.has(a) ? adam.direction(m[a][c], v[a][c]) : T(0);
}

// (N A')' of a warp's rows: out[k][row] for each k, summed across the strip.
template <class T, int ROWS>
DEVICE void warp_reduce_rows(const T (&n)[ROWS][LANE], const T* a_rows, int a_ld, int r, LaneTile tile,
                             T* out, int out_ld) {
    int lane = threadIdx.x % 32;
    for (int k = 0; k < r; ++k) {
        T x[LANE] = {};
        if (tile.inside) panel_eight(a_rows + i64(k) * a_ld, x);
        T mine = 0;
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
            T sum = 0;
#pragma unroll
            for (int c = 0; c < LANE; ++c) sum = fma(n[a][c], x[c], sum);
            for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
            if (lane == a) mine = sum;
        }
        if (lane < ROWS && lane < tile.rows) out[i64(k) * out_ld + lane] = mine;
    }
}

// What a block has at once of the rows that it goes down.
template <class T, template <class, int> class M, int WARP_ROWS, int SUMS> struct WideTile {
    typedef T Number;
    typedef M<T, WARP_ROWS> Moment;
    static constexpr int ROWS = WARP_ROWS;
    static constexpr int RANKS = SUMS;  // rows of B'N in registers; more of them are summed in memory
    static constexpr int HEIGHT = ROWS * WARPS;
    // Next moments, N, and so many numbers of B for each row.
    static constexpr int SHARED_BYTES =
        HEIGHT * (STRIP * (2 * Moment::MAX_SIZE + int(sizeof(T))) + RANKS * int(sizeof(T)));
    static_assert(WIDE_ROWS % HEIGHT == 0, "a group of rows is whole tiles");
    static_assert(SHARED_BYTES <= MAX_SHARED, "the tile fits into shared memory");
};

template <class Tile> DEVICE void wide(const Launch& launch) {
    SHARED(char, shared);
    if (!step_is_live(*launch.model)) return;
    typedef typename Tile::Number T;
    typedef typename Tile::Moment Moment;
    constexpr int ROWS = Tile::ROWS, RANKS = Tile::RANKS, HEIGHT = Tile::HEIGHT;
    Task task = launch.tasks[blockIdx.x];
    const Adapter& adapter = launch.model->adapters[task.item];
    const Side &columns = adapter.side[0], &rows = adapter.side[1];
    const int columns_ld = columns.ld, rows_ld = rows.ld, columns_len = columns.len;
    int r = adapter.r, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const T* left = global(static_cast<const T*>(rows.panel));
    const T* right = global(static_cast<const T*>(columns.panel));
    int sum_column = task.chunk * STRIP + threadIdx.x;  // of the thread, for B'N
    T* down = global(static_cast<T*>(columns.parts)) + i64(task.other) * r * columns_ld;
    T* across = global(static_cast<T*>(rows.parts)) + i64(task.chunk) * r * rows_ld;
    int start = task.other * adapter.wide_rows, end = min(rows.len, start + adapter.wide_rows);

    Adam<T> adam(adapter.hyper, adapter.step.k, adapter.step.eps);
    Moment first(adapter, 0), second(adapter, 1);
    char* stages[2] = {shared, shared + first.stage_bytes()};
    T* b_tile = reinterpret_cast<T*>(shared + 2 * first.stage_bytes());  // B of the block's rows
    T* n_tile = b_tile + HEIGHT * RANKS;                                  // N of them
    auto tile_at = [&](int at) {
        int row = at + warp * ROWS, column = task.chunk * STRIP + lane * LANE;
        // Rows reach to the next multiple of eight columns, and are zero there.
        return LaneTile{row, column, min(ROWS, end - row), column < columns_len};
    };
    auto start_copies_from = [&](int at) {
        if (at < end) {
            first.start(stages[0], tile_at(at));
            second.start(stages[1], tile_at(at));
        }
        commit_async();
    };

    T sums[RANKS] = {};
    start_copies_from(start);
    for (int at = start; at < end; at += HEIGHT) {
        LaneTile tile = tile_at(at);
        T m[ROWS][LANE], v[ROWS][LANE], n[ROWS][LANE];
        wait_async<0>();
        first.load(stages[0], tile, m);
        second.load(stages[1], tile, v);
        start_copies_from(at + HEIGHT);
        form_e(left + tile.row, right + tile.column, rows_ld, columns_ld, 2 * r, tile, n);
        normalize(adapter, adam, first, second, tile, m, v, n);
        warp_reduce_rows(n, right + i64(r) * columns_ld + tile.column, columns_ld, r, tile,
                         across + tile.row, rows_ld);
        int height = min(HEIGHT, end - at);
        for (int k0 = 0; k0 < r; k0 += RANKS) {
            __syncthreads();
            if (k0 == 0) {
#pragma unroll
                for (int a = 0; a < ROWS; ++a)
#pragma unroll
                    for (int c = 0; c < LANE; ++c)
                        n_tile[(warp * ROWS + a) * STRIP + lane * LANE + c] = n[a][c];
            }
            for (int e = threadIdx.x; e < HEIGHT * RANKS; e += BLOCK) {
                int i = e % HEIGHT, k = k0 + e / HEIGHT;
                b_tile[i * RANKS + k - k0] = i < height && k < r ? left[i64(k) * rows_ld + at + i] : T(0);
            }
            __syncthreads();
            if (sum_column >= columns_len) continue;
            bool kept = r <= RANKS;
            T* to = down + i64(k0) * columns_ld + sum_column;
#pragma unroll
            for (int k = 0; k < RANKS; ++k)
                if (!kept) sums[k] = at > start && k0 + k < r ? to[i64(k) * columns_ld] : T(0);
#pragma unroll 2
            for (int i = 0; i < height; ++i) {
                T x = n_tile[i * STRIP + threadIdx.x];
#pragma unroll
                for (int k = 0; k < RANKS; ++k) sums[k] = fma(b_tile[i * RANKS + k], x, sums[k]);
            }
            bool leave = !kept || at + HEIGHT >= end;
#pragma unroll
            for (int k = 0; k < RANKS; ++k)
                if (leave && k0 + k < r) to[i64(k) * columns_ld] = sums[k];
        }
    }
}

// A lane's M, V and N are 3 x ROWS x 8 numbers in registers, its sums RANKS more; a thread has 255.
// More rows share each read of a panel, more sums spare passes over N.
//
// r <= 8: 56 numbers, so that 128 registers do and a multiprocessor has two blocks. Both fit even into
// the 100 KiB of shared memory of 8.6 and 8.9, where each takes 1 KiB more.
typedef WideTile<float, FloatMoments, R8_WARP_ROWS, R8_RANKS> WideR8;
static_assert(2 * (WideR8::SHARED_BYTES + 1024) <= 100 * 1024);
KERNEL_OF(2) wide_f32_r8(const Launch launch) { wide<WideR8>(launch); }

// Larger r: 104 numbers and one block; 32 sums, so that up to r = 32 N is passed over once.
typedef WideTile<float, FloatMoments, R32_WARP_ROWS, R32_RANKS> WideR32;
KERNEL wide_f32_r32(const Launch launch) { wide<WideR32>(launch); }

// f64, of two registers each: 64 numbers.
typedef WideTile<double, FloatMoments, F64_WARP_ROWS, F64_RANKS> WideF64;
KERNEL wide_f64_r16(const Launch launch) { wide<WideF64>(launch); }

// 8 bits: the six rows of a scale are 144 numbers, which leave room for eight sums.
typedef WideTile<float, QuantizedMoments, QUANT_WARP_ROWS, QUANT_RANKS> WideQuantized;
KERNEL wide_f32_quantized(const Launch launch) { wide<WideQuantized>(launch); }
