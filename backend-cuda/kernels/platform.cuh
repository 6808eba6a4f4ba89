// What the kernels need of their platform: the GPU, or the test device that runs them on a CPU.
#pragma once

#ifdef LORA_PRO_EMULATOR
#include "emulator.h"
#else

// The dynamic shared memory of a block.
extern __shared__ double2 shared_memory[];
#define SHARED(T, name) T* name = reinterpret_cast<T*>(shared_memory)

// A pointer into global memory, which the compiler cannot know of one that was read from memory.
template <class T> __device__ __forceinline__ T* global(T* at) {
    __builtin_assume(__isGlobal(at));
    return at;
}

// D += A B by a warp, on the f64 tensor cores: A is 8 x 4, B is 4 x 8, D is 8 x 8.
// Lane l holds A[l / 4][l % 4], B[l % 4][l / 4] and D[l / 4][2 (l % 4) + {0, 1}].
__device__ __forceinline__ void mma_f64(double (&d)[2], double a, double b) {
    asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+d"(d[0]), "+d"(d[1])
        : "d"(a), "d"(b));
}

// Starts a copy of 4, 8 or 16 bytes from global into shared memory, past the registers; both places
// are aligned to as many bytes.
template <int BYTES> __device__ __forceinline__ void copy_async(void* to, const void* from) {
    unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(at), "l"(from), "n"(BYTES) : "memory");
}

// Closes a group: the copies that the thread has started since the last one.
__device__ __forceinline__ void commit_async() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for the thread's own copies, those of the last `REST` groups excepted.
template <int REST> __device__ __forceinline__ void wait_async() {
    asm volatile("cp.async.wait_group %0;" ::"n"(REST) : "memory");
}

// Between f32 and the bits of f16. The headers that have these are not there at run time.
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

__device__ __forceinline__ unsigned short float_to_half(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

#endif

#define DEVICE __device__ __forceinline__
// A larger function. On a GPU it is inlined, since what is live across a call goes through memory.
#ifdef LORA_PRO_EMULATOR
#define DEVICE_LARGE __device__ __noinline__
#else
#define DEVICE_LARGE DEVICE
#endif
// A function that is called from very many places and calls nothing.
#define DEVICE_LEAF __device__ __noinline__
// A kernel, of which a multiprocessor has room for so many blocks at least.
#define KERNEL_OF(blocks) extern "C" __global__ void __launch_bounds__(256, blocks)
#define KERNEL KERNEL_OF(1)

constexpr int WARPS = BLOCK / 32;
