// The thin passes of the factored mode. With H = (sU, sV') a side's part of E:
//
//     average:  H = Hg G + Hf F
//               sq <- b2 sq + (1 - b2) mean of E.E over the other dimension, from [H; F] and r x r
//               Y  <- b1 Y + (1 - b1) H
//               w  = a or b of N = Da (M / c1) Db;   F w [F; Y]'  in f64
//     advance:  D  = (T1 Y + T2 F) w + T3 F;  F1 = decay F - lr D;   F1 [F1; F; Y]'  in f64
//     carry:    Y <- T1 Y + T2 F + T3 F1;  F <- F1
//
// Side 1 holds B' and Z'. Nothing but the state and F is written that grows with m or n, besides
// copies of F, F1 and w in scratch memory. Task of each: an adapter, a side, a chunk.
#include "adam.cuh"
#include "block.cuh"
#include "gram.cuh"
#include "product.cuh"

// Averages the squares that the octets of a column left into `sq`, where their sum is not negative:
// it is a square, up to rounding. Leaves the column's weight; returns the mean in use.
template <class T>
DEVICE T weigh(const Pair& pair, const Side& side, int other_len, const T* parts, int width, int c,
               int column, T* weight) {
    T square = 0;
    for (int k = 0; k < octets(pair.r); ++k) square += parts[k * width + c];
    // (x + |x|) / 2, and not max(x, 0): a NaN must stay one, for the check after a doubtful step.
    square = T(0.5 / other_len) * (square + fabs(square));
    T* sq = global(static_cast<T*>(side.second)) + column;
    T mean = fma(T(1.0 - pair.hyper.beta2), square, T(pair.hyper.beta2) * *sq);
    *sq = mean;
    if (side.largest != nullptr) {
        T* largest = global(static_cast<T*>(side.largest)) + column;
        mean = *largest = larger(*largest, mean);
    }
    *weight = T(sqrt(pair.step.c2)) / (sqrt(mean) + T(pair.step.eps));
    return mean;
}

// sum + the products of an octet with the same rows of a tile.
template <class T>
DEVICE T with_rows(T sum, const T (&d)[OCTET], const T* x, Octet own, int r, int ld) {
#pragma unroll
    for (int a = 0; a < OCTET; ++a)
        if (own.i + a < r) sum = fma(x[(own.i + a) * ld + own.c], d[a], sum);
    return sum;
}

template <class T> DEVICE void average(const Launch& launch) {
    SHARED(T, shared);
    if (!may_go(*launch.model)) return;
    const auto [task, pair, side, tiles, start, end] = chunk_of<T>(launch, shared);
    int panel_ld = side.ld, len = side.len;
    int r = tiles.r, ld = tiles.ld, width = tiles.width;
    // Shared memory: the tiles; the squares that octets leave; weights; room for a sum.
    T* parts = static_cast<T*>(tiles.rest());
    T* weights = parts + octets(r) * width;
    double* room = reinterpret_cast<double*>(weights + width);
    const T *hg = coefficients<T>(pair, task.side, 0), *hf = coefficients<T>(pair, task.side, 1);
    const T *qs = coefficients<T>(pair, task.side, 2), *qm = coefficients<T>(pair, task.side, 3);
    const T* qk = coefficients<T>(pair, task.side, 4);
    T* y = global(static_cast<T*>(side.first));
    T* old = global(static_cast<T*>(side.old));
    double sum = 0.0;
    for (int at = start; at < end; at += width) {
        load_side(side, side.g, tiles, at);
        T* h = tiles.result();
        for (int k = threadIdx.x; k < octet_count(r, width); k += BLOCK) {
            Octet own(k, width);
            T d[OCTET] = {};
            add_product(d, hg, tiles.g(), own.i, own.c, r, ld);
            if (task.side == 1) add_product(d, hf, tiles.f(), own.i, own.c, r, ld);
#pragma unroll
            for (int a = 0; a < OCTET && own.i + a < r; ++a) h[(own.i + a) * ld + own.c] = d[a];
        }
        __syncthreads();
        // From here on G's tile is Y's.
        for (int k = threadIdx.x; k < octet_count(r, width); k += BLOCK) {
            Octet own(k, width);
            bool inside = at + own.c < len;
            T* own_y = y + own.i * panel_ld + at + own.c;
            T square = 0, d[OCTET] = {};
            add_product(d, qs, h, own.i, own.c, r, ld);
            add_product(d, qm, tiles.f(), own.i, own.c, r, ld);
            square = with_rows(square, d, h, own, r, ld);
#pragma unroll
            for (int a = 0; a < OCTET; ++a) d[a] = 0;
            add_product(d, qk, tiles.f(), own.i, own.c, r, ld);
            square = with_rows(square, d, tiles.f(), own, r, ld);
            T beta1 = T(pair.hyper.beta1), new1 = T(1.0 - pair.hyper.beta1);
            // All loads first: a store might be to the same place, for all that the compiler knows.
#pragma unroll
            for (int a = 0; a < OCTET; ++a) d[a] = inside && own.i + a < r ? own_y[a * panel_ld] : T(0);
#pragma unroll
            for (int a = 0; a < OCTET && own.i + a < r; ++a) {
                int in_tile = (own.i + a) * ld + own.c;
                T mean = inside ? fma(new1, h[in_tile], beta1 * d[a]) : T(0);
                tiles.g()[in_tile] = mean;
                if (!inside) continue;
                own_y[a * panel_ld] = mean;
                old[(own.i + a) * panel_ld + at + own.c] = tiles.f()[in_tile];
            }
            parts[own.i / OCTET * width + own.c] = square;
        }
        __syncthreads();
        for (int c = threadIdx.x; c < width; c += BLOCK) {
            weights[c] = 0;
            if (at + c >= len) continue;
            int other_len = pair.side[1 - task.side].len;
            sum += double(weigh(pair, side, other_len, parts, width, c, at + c, &weights[c]));
            global(static_cast<T*>(side.weights))[at + c] = weights[c];
        }
        __syncthreads();
        double* out = side.products + task.chunk * products_of(squares_of(r, 2 * r));
        gram(tiles.f(), r, tiles.f(), 2 * r, weights, false, width, ld, out, at == start);
        __syncthreads();
    }
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) side.squares[task.chunk] = sum;
}

KERNEL_OF(2) average_f32(const Launch launch) { average<float>(launch); }
KERNEL average_f64(const Launch launch) { average<double>(launch); }

template <class T> DEVICE void advance(const Launch& launch) {
    SHARED(T, shared);
    if (!may_go(*launch.model)) return;
    const auto [task, pair, side, tiles, start, end] = chunk_of<T>(launch, shared);
    int panel_ld = side.ld, len = side.len;
    int r = tiles.r, ld = tiles.ld, width = tiles.width;
    const T *t1 = coefficients<T>(pair, task.side, 0), *t2 = coefficients<T>(pair, task.side, 1);
    const T* t3 = coefficients<T>(pair, task.side, 2);
    const T* weights = global(static_cast<const T*>(side.weights));
    T* fresh = global(static_cast<T*>(side.fresh));
    T decay = T(pair.step.decay[task.side]), lr = T(pair.step.lr[task.side] * pair.step.clip);
    double* out = side.products + task.chunk * products_of(squares_of(r, 3 * r));
    double square = 0.0;
    for (int at = start; at < end; at += width) {
        load_panel<T>(side.old, panel_ld, r, len, at, width, tiles.f(), ld);
        load_panel<T>(side.first, panel_ld, r, len, at, width, tiles.g(), ld);
        finish_loads();
        for (int k = threadIdx.x; k < octet_count(r, width); k += BLOCK) {
            Octet own(k, width);
            T d[OCTET] = {};
            bool inside = at + own.c < len;
            add_product(d, t1, tiles.g(), own.i, own.c, r, ld);
            add_product(d, t2, tiles.f(), own.i, own.c, r, ld);
            T weight = inside ? weights[at + own.c] : T(0);
#pragma unroll
            for (int a = 0; a < OCTET; ++a) d[a] *= weight;
            add_product(d, t3, tiles.f(), own.i, own.c, r, ld);
#pragma unroll
            for (int a = 0; a < OCTET && own.i + a < r; ++a) {
                int in_tile = (own.i + a) * ld + own.c;
                T update = lr * d[a];
                T f = fma(decay, tiles.f()[in_tile], -update);
                tiles.result()[in_tile] = f;
                if (!inside) continue;
                square = fma(double(update), double(update), square);
                fresh[i64(own.i + a) * panel_ld + at + own.c] = f;
            }
        }
        __syncthreads();
        gram<T>(tiles.result(), r, tiles.result(), 3 * r, nullptr, false, width, ld, out, at == start);
        __syncthreads();
    }
    square = block_sum(square, static_cast<double*>(tiles.rest()));
    if (threadIdx.x == 0) side.squares[task.chunk] = square;
}

KERNEL_OF(2) advance_f32(const Launch launch) { advance<float>(launch); }
KERNEL advance_f64(const Launch launch) { advance<double>(launch); }

template <class T> DEVICE void carry(const Launch& launch) {
    SHARED(T, shared);
    if (!may_go(*launch.model)) return;
    const auto [task, pair, side, tiles, start, end] = chunk_of<T>(launch, shared);
    int panel_ld = side.ld, len = side.len;
    int r = tiles.r, ld = tiles.ld, width = tiles.width;
    const T *t1 = coefficients<T>(pair, task.side, 0), *t2 = coefficients<T>(pair, task.side, 1);
    const T* t3 = coefficients<T>(pair, task.side, 2);
    T* y = global(static_cast<T*>(side.first));
    for (int at = start; at < end; at += width) {
        load_panel<T>(side.fresh, panel_ld, r, len, at, width, tiles.result(), ld);
        load_panel<T>(side.old, panel_ld, r, len, at, width, tiles.f(), ld);
        load_panel<T>(side.first, panel_ld, r, len, at, width, tiles.g(), ld);
        finish_loads();
        for (int k = threadIdx.x; k < octet_count(r, width); k += BLOCK) {
            Octet own(k, width);
            T d[OCTET] = {};
            add_product(d, t1, tiles.g(), own.i, own.c, r, ld);
            add_product(d, t2, tiles.f(), own.i, own.c, r, ld);
            if (task.side == 1) add_product(d, t3, tiles.result(), own.i, own.c, r, ld);
            if (at + own.c >= len) continue;
#pragma unroll
            for (int a = 0; a < OCTET && own.i + a < r; ++a)
                y[i64(own.i + a) * panel_ld + at + own.c] = d[a];
        }
        store_factor(side, tiles.result(), r, at, width, ld, round_of(pair, task.side));
        __syncthreads();
    }
}

KERNEL_OF(3) carry_f32(const Launch launch) { carry<float>(launch); }
KERNEL carry_f64(const Launch launch) { carry<double>(launch); }
