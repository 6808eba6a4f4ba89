// Full mode, the pass over what is as large as W: for each entry
//
//     E = sum_q left[q][i] right[q][j]   with left = [B'; sV'], right = [sU; A]
//     M, V <- their averages, N from them
//     B'N and (N A')' from N, at once
//
// The moments are read and written once, and nothing else of their size is touched. A block has a
// strip of 256 columns and goes down its rows; a warp has some whole rows of the strip, a lane eight
// columns of them. B'N is summed by the block in registers, one column for each thread, down all its
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

// Eight neighbouring numbers.
template <class T, class S> DEVICE void read_eight(const void* base, i64 at, T (&x)[LANE]) {
    typedef Vector<typename S::Bytes> V;
    const V* from = reinterpret_cast<const V*>(static_cast<const typename S::Bytes*>(base) + at);
#pragma unroll
    for (int k = 0; k < LANE / V::COUNT; ++k) {
        V v = from[k];
#pragma unroll
        for (int a = 0; a < V::COUNT; ++a) x[k * V::COUNT + a] = T(S::widen(v.x[a]));
    }
}

template <class T> DEVICE void load_eight(const void* base, i64 at, int dtype, T (&x)[LANE]) {
    switch (dtype) {
    case F64: read_eight<T, Stored64>(base, at, x); break;
    case F32: read_eight<T, Stored32>(base, at, x); break;
    default: read_eight<T, Stored16b>(base, at, x);
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
    load_eight(panel, 0, sizeof(T) == 8 ? F64 : F32, x);
}

// One moment of a warp's rows, stored as numbers.
template <class T, int ROWS> struct Numbers {
    void* at;
    int dtype, ld;

    DEVICE Numbers(const Pair& pair, int which) : at(pair.wide[which]), dtype(pair.wide_dtype), ld(pair.wide_ld) {}
    DEVICE void load(int row, int column, int rows, bool inside, T (&x)[ROWS][LANE]) const {
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            if (inside && a < rows) load_eight(at, i64(row + a) * ld + column, dtype, x[a]);
            else for (int c = 0; c < LANE; ++c) x[a][c] = 0;
    }
    DEVICE void save(int row, int column, int rows, bool inside, const T (&x)[ROWS][LANE]) const {
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            if (inside && a < rows) store_eight(at, i64(row + a) * ld + column, dtype, x[a]);
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
        : at(static_cast<u8*>(pair.wide[which])), scales(pair.scales[which]), ld(pair.wide_ld),
          across((pair.side[0].len + CODE_COLUMNS - 1) / CODE_COLUMNS), code(Code{which > 0}),
          seed(seed_of(pair.name, 8 + which, pair.step.t)) {}
    DEVICE int block(int row, int column) const {
        return row / CODE_ROWS * across + column / CODE_COLUMNS;
    }
    DEVICE void load(int row, int column, int rows, bool inside, T (&x)[ROWS][LANE]) const {
        float scale = inside && rows > 0 ? scales[block(row, column)] : 0.0f;
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            for (int c = 0; c < LANE; ++c)
                x[a][c] = inside && a < rows ? T(code.decode(at[i64(row + a) * ld + column + c]) * scale) : T(0);
    }
    DEVICE void save(int row, int column, int rows, bool inside, const T (&x)[ROWS][LANE]) const {
        float top = 0.0f;
        for (int a = 0; a < ROWS; ++a)
            for (int c = 0; c < LANE; ++c) top = larger(top, fabsf(float(x[a][c])));
        for (int step = 1; step < CODE_COLUMNS / LANE; step <<= 1)
            top = larger(top, __shfl_xor_sync(0xffffffffu, top, step));
        if (!inside || rows <= 0) return;
        bool nothing = top < NOTHING;
        int number = block(row, column);
        if (column % CODE_COLUMNS == 0) scales[number] = nothing ? 0.0f : top / LARGEST_CODE;
        float inverse = nothing ? 0.0f : LARGEST_CODE / top;
        for (int a = 0; a < ROWS && a < rows; ++a)
            for (int c = 0; c < LANE; ++c) {
                u64 entry = u64(number) * (CODE_ROWS * CODE_COLUMNS) + a * CODE_COLUMNS + (column + c) % CODE_COLUMNS;
                at[i64(row + a) * ld + column + c] = code.encode(float(x[a][c]) * inverse, seed.at(entry));
            }
    }
};

// E of a warp's rows.
template <class T, int ROWS>
DEVICE void form_e(const T* left, const T* right, int left_ld, int right_ld, int count, int rows,
                   bool inside, T (&e)[ROWS][LANE]) {
    for (int a = 0; a < ROWS; ++a)
        for (int c = 0; c < LANE; ++c) e[a][c] = 0;
    if (!inside) return;
#pragma unroll 2
    for (int q = 0; q < count; ++q) {
        T x[LANE];
        panel_eight(right + i64(q) * right_ld, x);
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
            T by = a < rows ? left[i64(q) * left_ld + a] : T(0);
#pragma unroll
            for (int c = 0; c < LANE; ++c) e[a][c] = fma(by, x[c], e[a][c]);
        }
    }
}

// The moments after the step, and N in E's place.
template <class T, class Moment, int ROWS>
DEVICE void normalize(const Pair& pair, int row, int column, int rows, bool inside, T (&e)[ROWS][LANE]) {
    Adam<T> adam(pair.hyper, pair.step.k, pair.step.eps);
    Moment first(pair, 0), second(pair, 1), largest(pair, 2);
    T m[ROWS][LANE], v[ROWS][LANE];
    first.load(row, column, rows, inside, m);
    second.load(row, column, rows, inside, v);
#pragma unroll
    for (int a = 0; a < ROWS; ++a)
        for (int c = 0; c < LANE; ++c) {
            m[a][c] = adam.mean(m[a][c], e[a][c]);
            v[a][c] = adam.square(v[a][c], e[a][c]);
        }
    first.save(row, column, rows, inside, m);
    second.save(row, column, rows, inside, v);
    if (pair.wide[2] != nullptr) {
        T top[ROWS][LANE];
        largest.load(row, column, rows, inside, top);
        for (int a = 0; a < ROWS; ++a)
            for (int c = 0; c < LANE; ++c) v[a][c] = larger(top[a][c], v[a][c]);
        largest.save(row, column, rows, inside, v);
    }
#pragma unroll
    for (int a = 0; a < ROWS; ++a)
        for (int c = 0; c < LANE; ++c)
            e[a][c] = inside && a < rows ? adam.direction(m[a][c], v[a][c]) : T(0);
}

// (N A')' of a warp's rows: out[k][row] for each k, summed across the strip.
template <class T, int ROWS>
DEVICE void across_strip(const T (&n)[ROWS][LANE], const T* a_rows, int a_ld, int r, int rows, bool inside,
                         T* out, int out_ld) {
    int lane = threadIdx.x % 32;
    for (int k = 0; k < r; ++k) {
        T x[LANE] = {};
        if (inside) panel_eight(a_rows + i64(k) * a_ld, x);
        T mine = 0;
#pragma unroll
        for (int a = 0; a < ROWS; ++a) {
            T sum = 0;
#pragma unroll
            for (int c = 0; c < LANE; ++c) sum = fma(n[a][c], x[c], sum);
            for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
            if (lane == a) mine = sum;
        }
        if (lane < ROWS && lane < rows) out[i64(k) * out_ld + lane] = mine;
    }
}

// RANKS: rows of B'N that a thread keeps in registers. More of them are summed in memory.
template <class T, template <class, int> class Moment, int ROWS, int RANKS>
DEVICE void wide(const Launch& launch) {
    SHARED(T, shared);
    if (!may_go(*launch.model)) return;
    Task task = launch.tasks[blockIdx.x];
    const Pair& pair = launch.model->pairs[task.item];
    const Side &columns = pair.side[0], &rows = pair.side[1];
    int r = pair.r, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const T* left = static_cast<const T*>(rows.panel);
    const T* right = static_cast<const T*>(columns.panel);
    int own_column = task.chunk * STRIP + lane * LANE;  // of the lane
    int sum_column = task.chunk * STRIP + threadIdx.x;  // of the thread, for B'N
    // Memory of ours reaches to the next multiple of eight columns, and is zero there.
    bool inside = own_column < columns.len;
    T* down = static_cast<T*>(columns.parts) + i64(task.other) * r * columns.ld;
    T* across = static_cast<T*>(rows.parts) + i64(task.chunk) * r * rows.ld;
    int start = task.other * pair.wide_rows, end = min(rows.len, start + pair.wide_rows);
    T sums[RANKS] = {};
    for (int at = start; at < end; at += ROWS * WARPS) {
        int row = at + warp * ROWS, count = min(ROWS, end - row);
        T n[ROWS][LANE];
        form_e(left + row, right + own_column, rows.ld, columns.ld, 2 * r, count, inside, n);
        normalize<T, Moment<T, ROWS>>(pair, row, own_column, count, inside, n);
        across_strip(n, right + i64(r) * columns.ld + own_column, columns.ld, r, count, inside,
                     across + row, rows.ld);
        __syncthreads();
        for (int a = 0; a < ROWS; ++a)
            for (int c = 0; c < LANE; ++c) shared[(warp * ROWS + a) * STRIP + lane * LANE + c] = n[a][c];
        __syncthreads();
        int height = min(ROWS * WARPS, end - at);
        for (int k0 = 0; k0 < r && sum_column < columns.len; k0 += RANKS) {
            bool kept = r <= RANKS;
            T* to = down + i64(k0) * columns.ld + sum_column;
#pragma unroll
            for (int k = 0; k < RANKS; ++k)
                if (!kept) sums[k] = at > start && k0 + k < r ? to[i64(k) * columns.ld] : T(0);
            for (int i = 0; i < height; ++i) {
                T x = shared[i * STRIP + threadIdx.x];
#pragma unroll
                for (int k = 0; k < RANKS; ++k)
                    if (k0 + k < r) sums[k] = fma(left[i64(k0 + k) * rows.ld + at + i], x, sums[k]);
            }
            bool leave = !kept || at + ROWS * WARPS >= end;
#pragma unroll
            for (int k = 0; k < RANKS; ++k)
                if (leave && k0 + k < r) to[i64(k) * columns.ld] = sums[k];
        }
    }
}

KERNEL wide_f32_r8(const Launch launch) { wide<float, Numbers, 4, 8>(launch); }
KERNEL wide_f32_r32(const Launch launch) { wide<float, Numbers, 4, 32>(launch); }
KERNEL wide_f64_r16(const Launch launch) { wide<double, Numbers, 2, 16>(launch); }
KERNEL wide_f32_coded(const Launch launch) { wide<float, Coded, 6, 8>(launch); }
