// Reverses 256 numbers without waiting for them.
KERNEL no_barrier(const Launch launch) {
    SHARED(double, numbers);
    numbers[threadIdx.x] = in<double>(launch)[threadIdx.x];
    out<double>(launch)[threadIdx.x] = numbers[255 - threadIdx.x];
}

// The same within each warp.
KERNEL no_warp_barrier(const Launch launch) {
    SHARED(double, numbers);
    numbers[threadIdx.x] = in<double>(launch)[threadIdx.x];
    out<double>(launch)[threadIdx.x] = numbers[threadIdx.x ^ 31];
}

// Adds up in shared memory that was not set to zero.
KERNEL no_zero(const Launch launch) {
    SHARED(double, sum);
    for (unsigned t = 0; t < blockDim.x; t++) {
        if (threadIdx.x == t) *sum += in<double>(launch)[t];
        __syncthreads();
    }
    out<double>(launch)[threadIdx.x] = *sum;
}

KERNEL returns_early(const Launch launch) {
    if (threadIdx.x >= launch.words[0]) return;
    __syncthreads();
}

KERNEL two_barriers(const Launch) {
    if (threadIdx.x < 128) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

KERNEL missing_lane(const Launch launch) {
    if (threadIdx.x != 39) out<float>(launch)[threadIdx.x] = __shfl_sync(~0u, 1.0f, 0);
}

KERNEL lane_at_barrier(const Launch) {
    if (threadIdx.x == 39) __syncthreads();
    __syncwarp();
    if (threadIdx.x != 39) __syncthreads();
}

KERNEL two_operations(const Launch launch) {
    float value = 1.0f;
    if (threadIdx.x % 2) {
        value = __shfl_xor_sync(~0u, value, 1);
    } else {
        value = __shfl_down_sync(~0u, value, 1);
    }
    out<float>(launch)[threadIdx.x] = value;
}

KERNEL two_masks(const Launch) { __syncwarp(threadIdx.x % 32 < 16 ? ~0u : 0xffff0000u); }
KERNEL foreign_mask(const Launch) { __syncwarp(1u); }

KERNEL outside_of_mask(const Launch launch) {
    if (threadIdx.x % 32 < 16) out<float>(launch)[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 16);
}

// Writes, or reads, one byte of shared memory.
KERNEL write_shared(const Launch launch) {
    SHARED(char, bytes);
    if (threadIdx.x == 0) bytes[i64_of(launch)] = 1;
}
KERNEL read_shared(const Launch launch) {
    SHARED(volatile char, bytes);
    if (threadIdx.x == 0) out<char>(launch)[0] = bytes[i64_of(launch)];
}

// The same in device memory.
KERNEL write_device(const Launch launch) {
    if (threadIdx.x == 0) out<char>(launch)[i64_of(launch)] = 1;
}
KERNEL read_device(const Launch launch) {
    if (threadIdx.x == 0) out<char>(launch)[0] = out<volatile char>(launch)[i64_of(launch)];
}

KERNEL misaligned(const Launch launch) {
    if (threadIdx.x == 7) *reinterpret_cast<double2*>(out<double>(launch) + 1) = double2{1.0, 2.0};
}

KERNEL outside_of_array(const Launch launch) {
    double numbers[4] = {};
    for (unsigned i = 0; i < 4; i++) numbers[i] = in<double>(launch)[i];
    out<double>(launch)[threadIdx.x] = numbers[launch.words[0] & 7];
}

KERNEL divides(const Launch launch) { out<int>(launch)[0] = 7 / int(launch.words[0]); }

KERNEL traps(const Launch) { __trap(); }
