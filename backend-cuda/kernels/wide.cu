// Full mode, the pass over what is as large as W: for each entry
//
//     E = sum_q left[q][i] right[q][j]   with left = [B'; sV'], right = [sU; A]
//     M, V <- their averages, N from them
//     B'N and (N A')' from N, at once
//
// The moments are read and written once, and nothing else of their size is touched. A block has a
// strip of 256 columns and goes down its rows; a warp has some whole rows of the strip, a lane eight
// columns of them, and its next moments are on their way while it works. B'N is summed by the block in registers, one column for each thread, down all its
// rows; N A' is summed across the strip by each warp. Both leave one partial sum for each block.
//
// Task: an adapter, a strip (`chunk`), a group of rows (`other`).
#include "adam.cuh"
#include "block.cuh"
#include "codes.cuh"
#include "tile.cuh"

constexpr int STRIP = BLOCK;
constexpr int LANE = STRIP / 32;  // columns of a lane
constexpr int CODE_ROWS = 6, CODE_COLUMNS = 64;

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

// Which rows and columns a lane has. `inside` is false where its columns are beyond the last one.
struct Own {
    int row, column, rows;
    bool inside;
    DEVICE bool has(int a) const { return inside && a < rows; }
};

// A thread's own part of the stage: room in shared memory into which it copies its next moments while
// it works on those at hand. Nobody else looks at it, so that no barrier is needed.
DEVICE char* stage_of(char* stage, int piece, int bytes) {
    return stage + (piece * BLOCK + threadIdx.x) * bytes;
}

// One moment of a warp's rows, stored as numbers.
template <class T, int ROWS> struct Numbers {
    char* at;
    int dtype, ld, size, pieces;  // bytes of a number; pieces of sixteen bytes of eight numbers

    DEVICE Numbers(const Pair& pair, int which)
        : at(global(static_cast<char*>(pair.wide[which]))), dtype(pair.wide_dtype), ld(pair.wide_ld),
          size(dtype == F64 ? 8 : dtype == F32 ? 4 : 2), pieces(LANE * size / VECTOR) {}
    DEVICE int stage_bytes() const { return ROWS * pieces * BLOCK * VECTOR; }
    DEVICE char* place(Own own, int a) const { return at + (i64(own.row + a) * ld + own.column) * size; }

    DEVICE void start(char* stage, Own own) const {
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            for (int k = 0; k < pieces && own.has(a); ++k)
                copy_async<VECTOR>(stage_of(stage, a * pieces + k, VECTOR), place(own, a) + k * VECTOR);
    }
    // From the stage, or from memory where there is none.
    DEVICE void load(char* stage, Own own, T (&x)[ROWS][LANE]) const {
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
#pragma unroll
            for (int c = 0; c < LANE; ++c) x[a][c] = 0;
            if (!own.has(a)) continue;
            if (stage != nullptr) load_eight(stage_of(stage, a * pieces, VECTOR), BLOCK * VECTOR, dtype, x[a]);
            else load_eight(place(own, a), VECTOR, dtype, x[a]);
        }
    }
    DEVICE void save(Own own, const T (&x)[ROWS][LANE]) const {
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            if (own.has(a)) store_eight(place(own, a), 0, dtype, x[a]);
    }
};

// One moment of a warp's rows, stored as codes with one scale for each 6 by 64 of them: six rows of
// eight lanes.
template <class T, int ROWS> struct Coded {
    u8* at;
    float* scales;
    int ld, across;
    Code code;
    Seed seed;

    DEVICE Coded(const Pair& pair, int which)
        : at(global(static_cast<u8*>(pair.wide[which]))), scales(global(pair.scales[which])), ld(pair.wide_ld),
          across((pair.side[0].len + CODE_COLUMNS - 1) / CODE_COLUMNS), code(Code{which > 0}),
          seed(seed_of(pair.name, 8 + which, pair.step.t)) {}
    DEVICE int stage_bytes() const { return ROWS * BLOCK * LANE; }
    DEVICE u8* place(Own own, int a) const { return at + i64(own.row + a) * ld + own.column; }
    DEVICE int block(Own own) const { return own.row / CODE_ROWS * across + own.column / CODE_COLUMNS; }

    DEVICE void start(char* stage, Own own) const {
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            if (own.has(a)) copy_async<LANE>(stage_of(stage, a, LANE), place(own, a));
    }
    DEVICE void load(char* stage, Own own, T (&x)[ROWS][LANE]) const {
        float scale = own.has(0) ? scales[block(own)] : 0.0f;
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
            uint2 codes = make_uint2(0, 0);
            if (own.has(a))
                codes = *reinterpret_cast<const uint2*>(stage == nullptr ? static_cast<void*>(place(own, a))
                                                                         : stage_of(stage, a, LANE));
#pragma unroll
            for (int c = 0; c < LANE; ++c) {
                u32 word = c < 4 ? codes.x : codes.y;
                x[a][c] = T(code.decode(u8(word >> c % 4 * 8)) * scale);
            }
        }
    }
    DEVICE void save(Own own, const T (&x)[ROWS][LANE]) const {
        float top = 0.0f;
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
#pragma unroll
            for (int c = 0; c < LANE; ++c) top = larger(top, fabsf(float(x[a][c])));
        for (int step = 1; step < CODE_COLUMNS / LANE; step <<= 1)
            top = larger(top, __shfl_xor_sync(0xffffffffu, top, step));
        if (!own.has(0)) return;
        bool nothing = top < NOTHING;
        int number = block(own);
        if (own.column % CODE_COLUMNS == 0) scales[number] = nothing ? 0.0f : top / LARGEST_CODE;
        float inverse = nothing ? 0.0f : LARGEST_CODE / top;
        u64 entry = u64(number) * (CODE_ROWS * CODE_COLUMNS) + own.column % CODE_COLUMNS;
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
            u32 words[2] = {0, 0};
#pragma unroll
            for (int c = 0; c < LANE; ++c)
                words[c / 4] |= u32(code.encode(float(x[a][c]) * inverse, seed.at(entry + a * CODE_COLUMNS + c)))
                                << c % 4 * 8;
            if (own.has(a)) *reinterpret_cast<uint2*>(place(own, a)) = make_uint2(words[0], words[1]);
        }
    }
};

// E of a warp's rows.
template <class T, int ROWS>
DEVICE void form_e(const T* left, const T* right, int left_ld, int right_ld, int count, Own own,
                   T (&e)[ROWS][LANE]) {
#pragma unroll
    for (int a = 0; a < ROWS; ++a)
#pragma unroll
        for (int c = 0; c < LANE; ++c) e[a][c] = 0;
    if (!own.inside) return;
#pragma unroll 2
    for (int q = 0; q < count; ++q) {
        T x[LANE];
        panel_eight(right + i64(q) * right_ld, x);
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
            T by = a < own.rows ? left[i64(q) * left_ld + a] : T(0);
#pragma unroll
            for (int c = 0; c < LANE; ++c) e[a][c] = fma(by, x[c], e[a][c]);
        }
    }
}

// The moments after the step, and N in E's place.
template <class T, class Moment, int ROWS>
DEVICE void normalize(const Pair& pair, const Adam<T>& adam, const Moment& first, const Moment& second, Own own,
                      T (&m)[ROWS][LANE], T (&v)[ROWS][LANE], T (&e)[ROWS][LANE]) {
#pragma unroll
    for (int a = 0; a < ROWS; ++a)
#pragma unroll
        for (int c = 0; c < LANE; ++c) {
            m[a][c] = adam.mean(m[a][c], e[a][c]);
            v[a][c] = adam.square(v[a][c], e[a][c]);
        }
    first.save(own, m);
    second.save(own, v);
    if (pair.wide[2] != nullptr) {
        Moment largest(pair, 2);
        largest.load(nullptr, own, e);
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
#pragma unroll
            for (int c = 0; c < LANE; ++c) v[a][c] = larger(e[a][c], v[a][c]);
        largest.save(own, v);
    }
#pragma unroll
    for (int a = 0; a < ROWS; ++a)
#pragma unroll
        for (int c = 0; c < LANE; ++c) e[a][c] = own.has(a) ? adam.direction(m[a][c], v[a][c]) : T(0);
}

// (N A')' of a warp's rows: out[k][row] for each k, summed across the strip.
template <class T, int ROWS>
DEVICE void across_strip(const T (&n)[ROWS][LANE], const T* a_rows, int a_ld, int r, Own own, T* out, int out_ld) {
    int lane = threadIdx.x % 32;
    for (int k = 0; k < r; ++k) {
        T x[LANE] = {};
        if (own.inside) panel_eight(a_rows + i64(k) * a_ld, x);
        T mine = 0;
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
            T sum = 0;
#pragma unroll
            for (int c = 0; c < LANE; ++c) sum = fma(n[a][c], x[c], sum);
            for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
            if (lane == a) mine = sum;
        }
        if (lane < ROWS && lane < own.rows) out[i64(k) * out_ld + lane] = mine;
    }
}

// RANKS: rows of B'N that a thread keeps in registers. More of them are summed in memory.
template <class T, template <class, int> class Moment, int ROWS, int RANKS>
DEVICE void wide(const Launch& launch) {
    SHARED(char, shared);
    if (!may_go(*launch.model)) return;
    constexpr int HEIGHT = ROWS * WARPS;  // rows that the block has at once
    Task task = launch.tasks[blockIdx.x];
    const Pair& pair = launch.model->pairs[task.item];
    const Side &columns = pair.side[0], &rows = pair.side[1];
    const int columns_ld = columns.ld, rows_ld = rows.ld, columns_len = columns.len;
    int r = pair.r, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const T* left = global(static_cast<const T*>(rows.panel));
    const T* right = global(static_cast<const T*>(columns.panel));
    int sum_column = task.chunk * STRIP + threadIdx.x;  // of the thread, for B'N
    T* down = global(static_cast<T*>(columns.parts)) + i64(task.other) * r * columns_ld;
    T* across = global(static_cast<T*>(rows.parts)) + i64(task.chunk) * r * rows_ld;
    int start = task.other * pair.wide_rows, end = min(rows.len, start + pair.wide_rows);

    Adam<T> adam(pair.hyper, pair.step.k, pair.step.eps);
    Moment<T, ROWS> first(pair, 0), second(pair, 1);
    char* stages[2] = {shared, shared + first.stage_bytes()};
    T* b_tile = reinterpret_cast<T*>(shared + 2 * first.stage_bytes());  // B of the block's rows
    T* n_tile = b_tile + HEIGHT * RANKS;                                  // N of them
    auto own_from = [&](int at) {
        int row = at + warp * ROWS, column = task.chunk * STRIP + lane * LANE;
        // Memory of ours reaches to the next multiple of eight columns, and is zero there.
        return Own{row, column, min(ROWS, end - row), column < columns_len};
    };
    auto start_copies_from = [&](int at) {
        if (at < end) {
            first.start(stages[0], own_from(at));
            second.start(stages[1], own_from(at));
        }
        commit_async();
    };

    T sums[RANKS] = {};
    start_copies_from(start);
    for (int at = start; at < end; at += HEIGHT) {
        Own own = own_from(at);
        T m[ROWS][LANE], v[ROWS][LANE], n[ROWS][LANE];
        wait_async<0>();
        first.load(stages[0], own, m);
        second.load(stages[1], own, v);
        start_copies_from(at + HEIGHT);
        form_e(left + own.row, right + own.column, rows_ld, columns_ld, 2 * r, own, n);
        normalize(pair, adam, first, second, own, m, v, n);
        across_strip(n, right + i64(r) * columns_ld + own.column, columns_ld, r, own, across + own.row, rows_ld);
        int height = min(HEIGHT, end - at);
        for (int k0 = 0; k0 < r; k0 += RANKS) {
            __syncthreads();
            if (k0 == 0) {
#pragma unroll
                for (int a = 0; a < ROWS; ++a)
#pragma unroll
                    for (int c = 0; c < LANE; ++c) n_tile[(warp * ROWS + a) * STRIP + lane * LANE + c] = n[a][c];
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

KERNEL_OF(2) wide_f32_r8(const Launch launch) { wide<float, Numbers, 2, 8>(launch); }
KERNEL wide_f32_r32(const Launch launch) { wide<float, Numbers, 3, 32>(launch); }
KERNEL wide_f64_r16(const Launch launch) { wide<double, Numbers, 2, 16>(launch); }
KERNEL wide_f32_coded(const Launch launch) { wide<float, Coded, 6, 8>(launch); }
