// The pass that steps a factor: lora, sgd, efficient, and the end of the full mode.
//
//     D  = P G + T F                 (for plain LoRA D = gamma G)
//     D  = its momentum, or Adam's N of it
//     F <- decay F - lr D
//
// One read of F, G and the moments, one write of F and the moments. A rehearsal (`words[0]`) does
// the same and writes nothing: it finds the length of an update before a trust region cuts it.
//
// Task: an adapter, a side, a chunk.
#include "adam.cuh"
#include "block.cuh"
#include "product.cuh"

// What D becomes before it is subtracted.
template <class T>
DEVICE void follow(const Pair& pair, const Side& side, const Adam<T>& adam, i64 at, bool commit, T& d) {
    T* first = static_cast<T*>(side.first);
    if (pair.hyper.method == SGD) {
        if (first == nullptr) return;
        d = fma(T(pair.hyper.momentum), first[at], d);
        if (commit) first[at] = d;
        return;
    }
    T* second = static_cast<T*>(side.second);
    T* largest = static_cast<T*>(side.largest);
    T m = adam.mean(first[at], d), v = adam.square(second[at], d), top = v;
    if (largest != nullptr) top = larger(largest[at], v);
    if (commit) {
        first[at] = m;
        second[at] = v;
        if (largest != nullptr) largest[at] = top;
    }
    d = adam.direction(m, top);
}

template <class T> DEVICE void apply(const Launch& launch) {
    SHARED(T, shared);
    if (!may_go(*launch.model)) return;
    Task task = launch.tasks[blockIdx.x];
    const Pair& pair = launch.model->pairs[task.item];
    const Side& side = pair.side[task.side];
    bool commit = launch.words[0] == 0, full = pair.hyper.method == FULL;
    bool raw = pair.hyper.method == LORA;
    Tiles<T> tiles = tiles_of<T>(pair, shared);
    int r = tiles.r, ld = tiles.ld;
    const T* p = coefficients<T>(pair, task.side, 0);
    const T* t = coefficients<T>(pair, task.side, 1);
    Adam<T> adam(pair.hyper, pair.step.k, pair.step.eps);
    T gamma = T(pair.step.gamma), decay = T(pair.step.decay[task.side]);
    T lr = T(pair.step.lr[task.side] * pair.step.clip);
    View g = full ? panel_view<T>(side.gradient, side.ld) : side.g;
    double square = 0.0;
    int start = task.chunk * side.chunk, end = min(side.len, start + side.chunk);
    for (int at = start; at < end; at += tiles.width) {
        load_side(side, g, tiles, at);
        for (int k = threadIdx.x; k < octet_count(r, tiles.width); k += BLOCK) {
            Octet own(k, tiles.width);
            T d[OCTET] = {};
            if (raw) {
#pragma unroll
                for (int a = 0; a < OCTET && own.i + a < r; ++a)
                    d[a] = gamma * tiles.g()[(own.i + a) * ld + own.c];
            } else {
                add_product(d, p, tiles.g(), own.i, own.c, r, ld);
                add_product(d, t, tiles.f(), own.i, own.c, r, ld);
            }
            if (at + own.c >= side.len) continue;
#pragma unroll
 #pragma unroll
           for (int a = 0; a < OCTET; ++a) {
                int i = own.i + a;
                if (i >= r) continue;
                if (!full) follow(pair, side, adam, i64(i) * side.ld + at + own.c, commit, d[a]);
                T update = lr * d[a];
                square = fma(double(update), double(update), square);
                tiles.result()[i * ld + own.c] = fma(decay, tiles.f()[i * ld + own.c], -update);
            }
        }
        __syncthreads();
        if (commit)
            store_factor(side, tiles.result(), r, at, tiles.width, ld, round_of(pair, task.side));
    }
    square = block_sum(square, static_cast<double*>(tiles.rest()));
    if (threadIdx.x == 0) side.squares[task.chunk] = square;
}

KERNEL apply_f32(const Launch launch) { apply<float>(launch); }
KERNEL apply_f64(const Launch launch) { apply<double>(launch); }
