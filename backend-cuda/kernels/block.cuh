// What the threads of a block do together.
#pragma once
#include "number.cuh"
#include "platform.cuh"

// The sum over the block, in an order of its own that never changes; every thread gets it. `room`
// is shared memory for one number per warp, which nobody else uses. Ends in a barrier.
DEVICE_LARGE double block_sum(double x, double* room) {
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    double sum = 0.0;
    for (int warp = 0; warp < WARPS; ++warp) sum += room[warp];
    __syncthreads();
    return sum;
}

// Whether the step may change anything.
DEVICE bool may_go(const Model& model) {
    u32 refused = model.status->refused;
    return refused == 0 || (refused == DOUBTFUL && model.control->insist);
}

DEVICE Round round_of(const Pair& pair, int side) {
    return Round{pair.hyper.stochastic != 0, seed_of(pair.name, side, pair.step.t)};
}
