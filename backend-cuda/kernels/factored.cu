// The thin passes of the factored mode. With H = (sU, sV') a side's part of E:
//
//     update_moments:  H = Hg G + Hf F
//                      sq <- b2 sq + (1 - b2) mean of E.E over the other dimension, from [G; F] and
//                      r x r matrices;  Y <- b1 Y + (1 - b1) H
//                      w = a or b of N = Da (M / c1) Db;  F w [F; Y]'  in f64
//     update_factor:   D = (T1 Y + T2 F) w + T3 F;  F1 = decay F - lr D;  F1 [F1; F; Y]'  in f64
//     transport:       Y <- T1 Y + T2 F + T3 F1;  F <- F1
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
DEVICE T average_squares(const Adapter& adapter, const Side& side, int other_len, const T* parts,
                         int width, int c, int column, T* weight) {
    T square = 0;
    for (int k = 0; k < octets(adapter.r); ++k) square += parts[k * width + c];
    // (x + |x|) / 2, and not max(x, 0): a NaN must stay one, for the check after a step that may overflow.
    square = T(0.5 / other_len) * (square + fabs(square));
    T* sq = global(static_cast<T*>(side.second)) + column;
    T mean = fma(T(1.0 - adapter.hyper.beta2), square, T(adapter.hyper.beta2) * *sq);
    *sq = mean;
    if (side.largest != nullptr) {
        T* largest = global(static_cast<T*>(side.largest)) + column;
        mean = *largest = nan_max(*largest, mean);
    }
    *weight = T(sqrt(adapter.step.c2)) / (sqrt(mean) + T(adapter.step.eps));
    return mean;
}

// The sum of the signed squares of an octet, of which all rows count as many as the matrix has.
template <class T> DEVICE T signed_squares(T sum, const T (&d)[OCTET], const T* signs, Octet octet, int r) {
#pragma unroll
    for (int a = 0; a < OCTET; ++a)
        if (octet.i + a < r) sum = fma(signs == nullptr ? d[a] : signs[octet.i + a] * d[a], d[a], sum);
    return sum;
}

template <class T> DEVICE void update_moments(const Launch& launch) {
    SHARED(T, shared);
    if (!step_is_live(*launch.model)) return;
    const auto [task, adapter, side, tiles, start, end] = chunk_of<T>(launch, shared);
    int panel_ld = side.ld, len = side.len;
    int r = tiles.r, ld = tiles.ld, width = tiles.width;
    // Shared memory: the tiles; the squares that octets leave; weights; room for a sum.
    T* parts = static_cast<T*>(tiles.rest());
    T* weights = parts + octets(r) * width;
    double* room = reinterpret_cast<double*>(weights + width);
    const T *hg = coefficients<T>(adapter, task.side, 0), *hf = coefficients<T>(adapter, task.side, 1);
    const T *rg = coefficients<T>(adapter, task.side, 2), *rf = coefficients<T>(adapter, task.side, 3);
    const T *rk = coefficients<T>(adapter, task.side, 4), *signs = coefficients<T>(adapter, task.side, 5);
    T* y = global(static_cast<T*>(side.first));
    T* old = global(static_cast<T*>(side.old));
    double sum = 0.0;
    for (int at = start; at < end; at += width) {
        load_side(side, side.g, tiles, at);
        T* h = tiles.result();
        for (int k = threadIdx.x; k < octet_count(r, width); k += BLOCK) {
            Octet octet(k, width);
            T d[OCTET] = {};
            add_product(d, hg, tiles.g(), octet.i, octet.c, r, ld);
            if (task.side == 1) add_product(d, hf, tiles.f(), octet.i, octet.c, r, ld);
#pragma unroll
            for (int a = 0; a < OCTET && octet.i + a < r; ++a) h[(octet.i + a) * ld + octet.c] = d[a];
#pragma unroll
            for (int a = 0; a < OCTET; ++a) d[a] = 0;
            add_product(d, rg, tiles.g(), octet.i, octet.c, r, ld);
            add_product(d, rf, tiles.f(), octet.i, octet.c, r, ld);
            T square = signed_squares<T>(0, d, nullptr, octet, r);
#pragma unroll
            for (int a = 0; a < OCTET; ++a) d[a] = 0;
            add_product(d, rk, tiles.f(), octet.i, octet.c, r, ld);
            parts[octet.i / OCTET * width + octet.c] = signed_squares<T>(square, d, signs, octet, r);
        }
        __syncthreads();
        // From here on G's tile is Y's.
        for (int k = threadIdx.x; k < octet_count(r, width); k += BLOCK) {
            Octet octet(k, width);
            bool inside = at + octet.c < len;
            T* octet_y = y + octet.i * panel_ld + at + octet.c;
            T d[OCTET];
            T beta1 = T(adapter.hyper.beta1), new1 = T(1.0 - adapter.hyper.beta1);
            // All loads first: a store might be to the same place, for all that the compiler knows.
#pragma unroll
            for (int a = 0; a < OCTET; ++a) d[a] = inside && octet.i + a < r ? octet_y[a * panel_ld] : T(0);
#pragma unroll
            for (int a = 0; a < OCTET && octet.i + a < r; ++a) {
                int in_tile = (octet.i + a) * ld + octet.c;
                T mean = inside ? fma(new1, h[in_tile], beta1 * d[a]) : T(0);
                tiles.g()[in_tile] = mean;
                if (!inside) continue;
                octet_y[a * panel_ld] = mean;
                old[(octet.i + a) * panel_ld + at + octet.c] = tiles.f()[in_tile];
            }
        }
        __syncthreads();
        for (int c = threadIdx.x; c < width; c += BLOCK) {
            weights[c] = 0;
            if (at + c >= len) continue;
            int other_len = adapter.side[1 - task.side].len;
            sum += double(average_squares(adapter, side, other_len, parts, width, c, at + c, &weights[c]));
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

KERNEL_OF(2) update_moments_f32(const Launch launch) { update_moments<float>(launch); }
KERNEL update_moments_f64(const Launch launch) { update_moments<double>(launch); }

template <class T> DEVICE void update_factor(const Launch& launch) {
    SHARED(T, shared);
    if (!step_is_live(*launch.model)) return;
    const auto [task, adapter, side, tiles, start, end] = chunk_of<T>(launch, shared);
    int panel_ld = side.ld, len = side.len;
    int r = tiles.r, ld = tiles.ld, width = tiles.width;
    const T *t1 = coefficients<T>(adapter, task.side, 0), *t2 = coefficients<T>(adapter, task.side, 1);
    const T* t3 = coefficients<T>(adapter, task.side, 2);
    const T* weights = global(static_cast<const T*>(side.weights));
    T* updated = global(static_cast<T*>(side.updated));
    T decay = T(adapter.step.decay[task.side]), lr = T(adapter.step.lr[task.side] * adapter.step.clip);
    double* out = side.products + task.chunk * products_of(squares_of(r, 3 * r));
    double square = 0.0;
    for (int at = start; at < end; at += width) {
        load_panel<T>(side.old, panel_ld, r, len, at, width, tiles.f(), ld);
        load_panel<T>(side.first, panel_ld, r, len, at, width, tiles.g(), ld);
        finish_loads();
        for (int k = threadIdx.x; k < octet_count(r, width); k += BLOCK) {
            Octet octet(k, width);
            T d[OCTET] = {};
            bool inside = at + octet.c < len;
            add_product(d, t1, tiles.g(), octet.i, octet.c, r, ld);
            add_product(d, t2, tiles.f(), octet.i, octet.c, r, ld);
            T weight = inside ? weights[at + octet.c] : T(0);
#pragma unroll
            for (int a = 0; a < OCTET; ++a) d[a] *= weight;
            add_product(d, t3, tiles.f(), octet.i, octet.c, r, ld);
#pragma unroll
            for (int a = 0; a < OCTET && octet.i + a < r; ++a) {
                int in_tile = (octet.i + a) * ld + octet.c;
                T update = lr * d[a];
                T f = fma(decay, tiles.f()[in_tile], -update);
                tiles.result()[in_tile] = f;
                if (!inside) continue;
                square = fma(double(update), double(update), square);
                updated[i64(octet.i + a) * panel_ld + at + octet.c] = f;
            }
        }
        __syncthreads();
        gram<T>(tiles.result(), r, tiles.result(), 3 * r, nullptr, false, width, ld, out, at == start);
        __syncthreads();
    }
    square = block_sum(square, static_cast<double*>(tiles.rest()));
    if (threadIdx.x == 0) side.squares[task.chunk] = square;
}

KERNEL_OF(2) update_factor_f32(const Launch launch) { update_factor<float>(launch); }
KERNEL update_factor_f64(const Launch launch) { update_factor<double>(launch); }

template <class T> DEVICE void transport(const Launch& launch) {
    SHARED(T, shared);
    if (!step_is_live(*launch.model)) return;
    const auto [task, adapter, side, tiles, start, end] = chunk_of<T>(launch, shared);
    int panel_ld = side.ld, len = side.len;
    int r = tiles.r, ld = tiles.ld, width = tiles.width;
    const T *t1 = coefficients<T>(adapter, task.side, 0), *t2 = coefficients<T>(adapter, task.side, 1);
    const T* t3 = coefficients<T>(adapter, task.side, 2);
    T* y = global(static_cast<T*>(side.first));
    for (int at = start; at < end; at += width) {
        load_panel<T>(side.updated, panel_ld, r, len, at, width, tiles.result(), ld);
        load_panel<T>(side.old, panel_ld, r, len, at, width, tiles.f(), ld);
        load_panel<T>(side.first, panel_ld, r, len, at, width, tiles.g(), ld);
        finish_loads();
        for (int k = threadIdx.x; k < octet_count(r, width); k += BLOCK) {
            Octet octet(k, width);
            T d[OCTET] = {};
            add_product(d, t1, tiles.g(), octet.i, octet.c, r, ld);
            add_product(d, t2, tiles.f(), octet.i, octet.c, r, ld);
            if (task.side == 1) add_product(d, t3, tiles.result(), octet.i, octet.c, r, ld);
            if (at + octet.c >= len) continue;
#pragma unroll
            for (int a = 0; a < OCTET && octet.i + a < r; ++a)
                y[i64(octet.i + a) * panel_ld + at + octet.c] = d[a];
        }
        store_factor(side, tiles.result(), r, at, width, ld, round_of(adapter, task.side));
        __syncthreads();
    }
}

KERNEL_OF(3) transport_f32(const Launch launch) { transport<float>(launch); }
KERNEL transport_f64(const Launch launch) { transport<double>(launch); }
