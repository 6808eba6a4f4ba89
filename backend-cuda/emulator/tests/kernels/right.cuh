// out[block] = the sum of the block's 256 numbers; out[grid] (unsigned) counts blocks.
KERNEL block_sum(const Launch launch) {
    SHARED(double, sums);
    const unsigned t = threadIdx.x;
    double sum = in<double>(launch)[blockIdx.x * blockDim.x + t];
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_down_sync(~0u, sum, distance);
    if (t % 32 == 0) sums[t / 32] = sum;
    __syncthreads();
    if (t < 32) {
        double part = t < 8 ? sums[t] : 0.0;
        for (int bits = 4; bits > 0; bits /= 2) part += __shfl_xor_sync(~0u, part, bits);
        if (t == 0) out<double>(launch)[blockIdx.x] = part;
    }
    if (t == 0) atomicAdd(reinterpret_cast<unsigned*>(out<double>(launch) + gridDim.x), 1u);
}

// Each thread writes what 16 shuffles of its number give; those that are left out write zero.
template <class T> __device__ __forceinline__ void shuffle_all(const Launch& launch) {
    const unsigned t = threadIdx.x;
    const T own = in<T>(launch)[t];
    T* found = out<T>(launch) + 16 * t;
    for (int i = 0; i < 16; i++) found[i] = T(0);
    found[0] = __shfl_sync(~0u, own, 5);
    found[1] = __shfl_sync(~0u, own, 7 * t);
    found[2] = __shfl_sync(~0u, own, 3, 8);
    found[3] = __shfl_xor_sync(~0u, own, 17);
    found[4] = __shfl_xor_sync(~0u, own, 12, 8);
    found[5] = __shfl_down_sync(~0u, own, 9);
    found[6] = __shfl_down_sync(~0u, own, 3, 4);
    found[7] = __shfl_up_sync(~0u, own, 9);
    found[8] = __shfl_up_sync(~0u, own, 3, 4);
    // Halves of a warp may part for a while.
    if (t % 32 < 16) {
        found[9] = __shfl_xor_sync(0x0000ffffu, own, 1);
        found[10] = __shfl_xor_sync(0x0000ffffu, own, 2);
    } else {
        found[11] = __shfl_xor_sync(0xffff0000u, own, 3);
    }
    __syncwarp();
    found[12] = __shfl_xor_sync(~0u, own, 31);
}

KERNEL shuffle_f64(const Launch launch) { shuffle_all<double>(launch); }
KERNEL shuffle_f32(const Launch launch) { shuffle_all<float>(launch); }
KERNEL shuffle_i32(const Launch launch) { shuffle_all<int>(launch); }
KERNEL shuffle_u32(const Launch launch) { shuffle_all<unsigned>(launch); }

// Each warp: D (8 x 8) += A (8 x K) B (K x 8), K = words[0]; A, B, D row by row, one after another.
KERNEL multiply(const Launch launch) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, size = unsigned(launch.words[0]);
    const double* a = in<double>(launch) + warp * 16 * size;
    const double* b = a + 8 * size;
    double* d = out<double>(launch) + warp * 64 + lane * 2;
    double sums[2] = {d[0], d[1]};
    for (unsigned k = lane % 4; k < size; k += 4) mma_f64(sums, a[lane / 4 * size + k], b[k * 8 + lane / 4]);
    d[0] = sums[0];
    d[1] = sums[1];
}

// Votes of a block and of its warps, on whether a thread's number is not zero.
KERNEL votes(const Launch launch) {
    const bool vote = in<int>(launch)[threadIdx.x];
    unsigned* found = out<unsigned>(launch) + 8 * threadIdx.x;
    found[0] = __syncthreads_or(vote);
    found[1] = __syncthreads_and(vote);
    found[2] = __syncthreads_count(vote);
    found[3] = __ballot_sync(~0u, vote);
    found[4] = __any_sync(~0u, vote);
    found[5] = __all_sync(~0u, vote);
    found[6] = __syncthreads_or(vote);
    found[7] = __popc(found[3]);
}

// All threads of all blocks on the same eight integers.
KERNEL atomics(const Launch launch) {
    unsigned* at = out<unsigned>(launch);
    const unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(at, 1u);
    atomicOr(at + 1, 1u << t % 31);
    atomicMax(at + 2, t);
    atomicMin(at + 3, t + 7);
    atomicAnd(at + 4, ~(1u << t % 3));
    atomicAdd(reinterpret_cast<int*>(at + 5), -2);
    atomicMax(reinterpret_cast<int*>(at + 6), -int(t));
    atomicCAS(at + 7, 0u, 9u);
}

// Bits, hints, vectors and mathematics, by the first thread of each block; 1 where it is right.
KERNEL names(const Launch launch) {
    if (threadIdx.x != 0) return;
    unsigned* right = out<unsigned>(launch);
    const float4 four = make_float4(1.0f, 2.0f, 3.0f, 4.0f);
    float4 copy;
    __stcs(&copy, __ldcs(&four));
    const ushort4 shorts = {1, 2, 3, 65535};
    right[0] = copy.w == 4.0f && __ldg(&copy).x == 1.0f && shorts.w + 1 == 65536;
    right[1] = sizeof(float2) == 8 && alignof(double2) == 16 && alignof(uint4) == 16 && alignof(ushort4) == 8;
    right[2] = __float_as_uint(1.0f) == 0x3f800000u && __uint_as_float(0xc0000000u) == -2.0f;
    right[3] = __double_as_longlong(1.0) == 0x3ff0000000000000ll && __longlong_as_double(0) == 0.0;
    right[4] = fma(0x1p-30, 0x1p-30, 1.0 - 0x1p-53) != 0x1p-30 * 0x1p-30 + (1.0 - 0x1p-53) || fmaf(2, 3, 4) == 10;
    right[5] = abs(-0.5) == 0.5 && sqrt(2.0f) == sqrtf(2.0f) && isnan(NAN) && max(2, 3u) == 3 && min(1.5, 2) == 1.5;
    right[6] = __clz(1) == 31 && __ffs(8) == 4 && __popc(255) == 8;
    right[7] = blockDim.x == 256 && gridDim.x == 1 && threadIdx.y == 0 && blockDim.y == 1 && warpSize == 32;
}

// f16 to f32 and back: out[i] = the bits again; and in[i] (f32) to f16.
KERNEL halves(const Launch launch) {
    for (unsigned bits = threadIdx.x; bits < 65536; bits += blockDim.x) {
        out<unsigned short>(launch)[bits] = float_to_half(half_to_float(bits));
    }
    out<unsigned short>(launch)[65536 + threadIdx.x] = float_to_half(in<float>(launch)[threadIdx.x]);
}

// Copies one number for each thread, after `words[0]` barriers.
KERNEL copy(const Launch launch) {
    for (u64 i = 0; i < launch.words[0]; i++) __syncthreads();
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    out<double>(launch)[at] = in<double>(launch)[at];
}

// For timing: `words[0]` shuffles, or products.
KERNEL many_shuffles(const Launch launch) {
    double value = threadIdx.x;
    for (u64 i = 0; i < launch.words[0]; i++) value = __shfl_xor_sync(~0u, value, 1 + (i & 15));
    out<double>(launch)[threadIdx.x] = value;
}
KERNEL many_products(const Launch launch) {
    double d[2] = {0.0, 0.0};
    for (u64 i = 0; i < launch.words[0]; i++) mma_f64(d, threadIdx.x, double(i));
    out<double>(launch)[threadIdx.x] = d[0] + d[1];
}
