// First pass of every method: [F; G][F; G]' of each chunk of columns, before anything is written.
// It holds the Gram matrix, the cross product and the gradient's norm of a side; an entry that is
// not finite shows on its diagonal.
//
// Task: an adapter, a side, a chunk.
#include "gram.cuh"
#include "block.cuh"

template <class T> DEVICE void survey(const Launch& launch) {
    SHARED(T, shared);
    const auto [task, pair, side, tiles, start, end] = chunk_of<T>(launch, shared);
    double* out = side.products + task.chunk * products_of(squares_of(2 * pair.r, 2 * pair.r));
    for (int at = start; at < end; at += tiles.width) {
        load_side(side, side.g, tiles, at);
        gram<T>(tiles.f(), 2 * pair.r, tiles.f(), 2 * pair.r, nullptr, true, tiles.width, tiles.ld, out,
                at == start);
        __syncthreads();
    }
}

KERNEL_OF(3) survey_f32(const Launch launch) { survey<float>(launch); }
KERNEL survey_f64(const Launch launch) { survey<double>(launch); }
