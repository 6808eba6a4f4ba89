// Full mode: the thin passes on both sides of the wide one.
//
//     form:        [sU; A] and [B'; sV'], so that E = [B  sV] [sU; A]
//     cross_pass:  the side's part of N from its partial sums, in f64 and in their order; F G' with
//                  it in the place of G
//
// Task of each: an adapter, a side, a chunk.
#include "block.cuh"
#include "gram.cuh"
#include "product.cuh"

template <class T> DEVICE void form(const Launch& launch) {
    SHARED(T, shared);
    if (!step_is_live(*launch.model)) return;
    const auto [task, adapter, side, tiles, start, end] = chunk_of<T>(launch, shared);
    int panel_ld = side.ld, len = side.len;
    int r = tiles.r, ld = tiles.ld;
    const T *hg = coefficients<T>(adapter, task.side, 0), *hf = coefficients<T>(adapter, task.side, 1);
    T* h = global(static_cast<T*>(side.panel)) + (task.side == 0 ? 0 : i64(r) * side.ld);
    T* f = global(static_cast<T*>(side.panel)) + (task.side == 0 ? i64(r) * side.ld : 0);
    for (int at = start; at < end; at += tiles.width) {
        load_side(side, side.g, tiles, at);
        for (int k = threadIdx.x; k < octet_count(r, tiles.width); k += BLOCK) {
            Octet octet(k, tiles.width);
            T d[OCTET] = {};
            add_product(d, hg, tiles.g(), octet.i, octet.c, r, ld);
            if (task.side == 1) add_product(d, hf, tiles.f(), octet.i, octet.c, r, ld);
            if (at + octet.c >= len) continue;
#pragma unroll
            for (int a = 0; a < OCTET && octet.i + a < r; ++a) {
                i64 to = i64(octet.i + a) * panel_ld + at + octet.c;
                h[to] = d[a];
                f[to] = tiles.f()[(octet.i + a) * ld + octet.c];
            }
        }
        __syncthreads();
    }
}

KERNEL_OF(2) form_f32(const Launch launch) { form<float>(launch); }
KERNEL form_f64(const Launch launch) { form<double>(launch); }

template <class T> DEVICE void cross_pass(const Launch& launch) {
    SHARED(T, shared);
    if (!step_is_live(*launch.model)) return;
    const auto [task, adapter, side, tiles, start, end] = chunk_of<T>(launch, shared);
    int panel_ld = side.ld, len = side.len;
    int r = tiles.r, ld = tiles.ld;
    const T* parts = global(static_cast<const T*>(side.parts));
    double* out = side.products + task.chunk * products_of(squares_of(r, r));
    for (int at = start; at < end; at += tiles.width) {
        for (int e = threadIdx.x; e < r * tiles.width; e += BLOCK) {
            Place place = by_rows(e, tiles.width);
            double sum = 0.0;
            i64 from = i64(place.i) * panel_ld + at + place.c;
            bool inside = at + place.c < len;
            for (int k = 0; k < side.part_count && inside; ++k)
                sum += double(parts[i64(k) * r * panel_ld + from]);
            tiles.g()[place.i * ld + place.c] = T(sum);
            if (inside) static_cast<T*>(side.gradient)[from] = T(sum);
        }
        load_side<T>(side, View{}, tiles, at);
        gram<T>(tiles.f(), r, tiles.g(), r, nullptr, false, tiles.width, ld, out, at == start);
        __syncthreads();
    }
}

KERNEL_OF(3) cross_pass_f32(const Launch launch) { cross_pass<float>(launch); }
KERNEL cross_pass_f64(const Launch launch) { cross_pass<double>(launch); }
