// What the threads of a block do together.
#pragma once
#include "number.cuh"
#include "platform.cuh"

// The sum over the block, in an order that never changes; every thread gets it. `room` is shared
// memory for one number per warp, with no other use. Ends in a barrier.
DEVICE_LARGE double block_sum(double x, double* room) {
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    double sum = 0.0;
    for (int warp = 0; warp < WARPS; ++warp) sum += room[warp];
    __syncthreads();
    return sum;
}

// Whether the step may change anything: no reason against it, or only one that the host overrides.
DEVICE bool step_is_live(const Model& model) {
    u32 rejected = model.status->rejected;
    return rejected == 0 || (rejected == MAY_OVERFLOW && model.control->allow_overflow);
}

DEVICE Round round_of(const Adapter& adapter, int side) {
    return Round{adapter.hyper.stochastic != 0, seed_of(adapter.name, side, adapter.step.t)};
}
