// First pass of every method: [F; G][F; G]' of each chunk of columns, before anything is written.
// It holds the Gram matrix, the cross product and the gradient's norm of a side; an entry that is
// not finite shows on its diagonal.
//
// Task: an adapter, a side, a chunk.
#include "gram.cuh"
#include "block.cuh"

template <class T> DEVICE void gram_pass(const Launch& launch) {
    SHARED(T, shared);
    const auto [task, adapter, side, tiles, start, end] = chunk_of<T>(launch, shared);
    double* out = side.products + task.chunk * products_of(squares_of(2 * adapter.r, 2 * adapter.r));
    for (int at = start; at < end; at += tiles.width) {
        load_side(side, side.g, tiles, at);
        gram<T>(tiles.f(), 2 * adapter.r, tiles.f(), 2 * adapter.r, nullptr, true, tiles.width, tiles.ld, out,
                at == start);
        __syncthreads();
    }
}

KERNEL_OF(3) gram_pass_f32(const Launch launch) { gram_pass<float>(launch); }
KERNEL gram_pass_f64(const Launch launch) { gram_pass<double>(launch); }
