// CUDA's names for kernels that run on the CPU.
//
// A kernel is `extern "C" __global__ void NAME(const Launch launch)`, runs in blocks of 256
// threads, and has the shared memory of `SHARED(T, name)` and no other.
#pragma once

// All headers of the system come before the names below: some of them use the same ones.
#include <cfloat>
#include <climits>
#include <memory>

#include "arithmetic.h"
#include "async.h"
#include "atomics.h"
#include "barriers.h"
#include "bits.h"
#include "block.h"
#include "checks.h"
#include "faults.h"
#include "half.h"
#include "mma.h"
#include "order.h"
#include "vectors.h"
#include "warp.h"

#define __global__ __attribute__((visibility("default")))
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)

template <class T>
inline T* global(T* at) {
    return at;
}

#define SHARED(T, name) T* const name = reinterpret_cast<T*>(emulator::machine->shared.start())

#define threadIdx (emulator::self->index)
#define blockIdx (emulator::machine->block)
#define gridDim (emulator::machine->grid)
constexpr dim3 blockDim = {emulator::THREADS, 1, 1};
constexpr int warpSize = emulator::LANES;
