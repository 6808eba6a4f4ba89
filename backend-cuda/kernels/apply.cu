// The pass that steps a factor: lora, sgd, efficient, and the end of the full mode.
//
//     D  = P G + T F                 (for plain LoRA D = gamma G)
//     D  = its momentum, or Adam's N of it
//     F <- decay F - lr D
//
// One read of F, G and the moments, one write of F and the moments. A dry run (`words[0]`) does the
// same and writes nothing: it finds the length of an update before a trust region cuts it.
//
// Task: an adapter, a side, a chunk.
#include "adam.cuh"
#include "block.cuh"
#include "product.cuh"

// A side's moments in memory; null where there is none.
template <class T> struct Moments {
    T *first, *second, *largest;
    DEVICE Moments(const Side& side)
        : first(global(static_cast<T*>(side.first))), second(global(static_cast<T*>(side.second))),
          largest(global(static_cast<T*>(side.largest))) {}

    // What D becomes before it is subtracted: its momentum, or Adam's N of it. `m` and `v` are the
    // old moments, `at` is their place.
    DEVICE T apply_update_rule(const Adam<T>& adam, T momentum, T m, T v, int at, bool commit, T d) const {
        if (second == nullptr) {
            d = fma(momentum, m, d);
            if (commit) first[at] = d;
            return d;
        }
        m = adam.mean(m, d);
        v = adam.square(v, d);
        T top = largest == nullptr ? v : nan_max(largest[at], v);
        if (commit) {
            first[at] = m;
            second[at] = v;
            if (largest != nullptr) largest[at] = top;
        }
        return adam.direction(m, top);
    }
};

// Starts to load the moments that there are.
template <class T> DEVICE void start_moments(const Side& side, const Tiles<T>& tiles, int start) {
#pragma unroll 1
    for (int k = 0; k < 2; ++k) {
        const void* panel = k == 0 ? side.first : side.second;
        if (panel != nullptr)
            load_panel<T>(panel, side.ld, tiles.r, side.len, start, tiles.width, tiles.moment(k), tiles.ld);
    }
}

template <class T> DEVICE void apply(const Launch& launch) {
    SHARED(T, shared);
    if (!step_is_live(*launch.model)) return;
    const auto [task, adapter, side, tiles, start, end] = chunk_of<T>(launch, shared);
    bool commit = launch.words[0] == 0;
    bool raw = adapter.hyper.method == LORA;
    int r = tiles.r, ld = tiles.ld;
    const T* p = coefficients<T>(adapter, task.side, 0);
    const T* t = coefficients<T>(adapter, task.side, 1);
    Adam<T> adam(adapter.hyper, adapter.step.k, adapter.step.eps);
    T gamma = T(adapter.step.gamma), decay = T(adapter.step.decay[task.side]);
    T lr = T(adapter.step.lr[task.side] * adapter.step.clip);
    T momentum = T(adapter.hyper.momentum);
    Moments<T> moments(side);
    int panel_ld = side.ld, len = side.len;
    View g = adapter.hyper.method == FULL ? panel_view<T>(side.gradient, side.ld) : side.g;
    double square = 0.0;
    for (int at = start; at < end; at += tiles.width) {
        start_side(side, g, tiles, at);
        start_moments(side, tiles, at);
        finish_loads();
        merge_master(side, tiles, at);
        for (int k = threadIdx.x; k < octet_count(r, tiles.width); k += BLOCK) {
            Octet octet(k, tiles.width);
            T d[OCTET] = {};
            if (!raw) {
                add_product(d, p, tiles.g(), octet.i, octet.c, r, ld);
                add_product(d, t, tiles.f(), octet.i, octet.c, r, ld);
            }
            if (at + octet.c >= len) continue;
#pragma unroll
            for (int a = 0; a < OCTET; ++a) {
                int i = octet.i + a;
                if (i >= r) continue;
                int in_tile = i * ld + octet.c;
                if (raw) d[a] = gamma * tiles.g()[in_tile];
                if (moments.first != nullptr)
                    d[a] = moments.apply_update_rule(adam, momentum, tiles.moment(0)[in_tile],
                                                     tiles.moment(1)[in_tile],
                                                     i * panel_ld + at + octet.c, commit, d[a]);
                T update = lr * d[a];
                square = fma(double(update), double(update), square);
                tiles.result()[in_tile] = fma(decay, tiles.f()[in_tile], -update);
            }
        }
        __syncthreads();
        if (commit)
            store_factor(side, tiles.result(), r, at, tiles.width, ld, round_of(adapter, task.side));
    }
    square = block_sum(square, static_cast<double*>(tiles.rest(5)));
    if (threadIdx.x == 0) side.squares[task.chunk] = square;
}

KERNEL_OF(2) apply_f32(const Launch launch) { apply<float>(launch); }
KERNEL apply_f64(const Launch launch) { apply<double>(launch); }
