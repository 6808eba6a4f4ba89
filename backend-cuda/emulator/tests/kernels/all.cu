// Small kernels, right and wrong, for the tests of the test device.
#include "emulator.h"

typedef unsigned long long u64;

// `model` is what a kernel reads, `tasks` what it writes.
struct Launch {
    u64 model, tasks;
    double numbers[4];
    u64 words[2];
};

template <class T> const T* in(const Launch& launch) { return reinterpret_cast<const T*>(launch.model); }
template <class T> T* out(const Launch& launch) { return reinterpret_cast<T*>(launch.tasks); }

__device__ inline long long i64_of(const Launch& launch) { return static_cast<long long>(launch.words[0]); }

#define KERNEL extern "C" __global__ void __launch_bounds__(256)

#include "right.cuh"
#include "wrong.cuh"
