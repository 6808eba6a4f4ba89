// Barriers and fences of a block.
#pragma once

#include "site.h"
#include "wait.h"

inline void __syncthreads(SHIM_HERE) { shim::barrier({"__syncthreads", file, line}, false); }
inline int __syncthreads_or(int vote, SHIM_HERE) {
    return shim::barrier({"__syncthreads_or", file, line}, vote) > 0;
}
inline int __syncthreads_and(int vote, SHIM_HERE) {
    return shim::barrier({"__syncthreads_and", file, line}, vote) == shim::THREADS;
}
inline int __syncthreads_count(int vote, SHIM_HERE) {
    return shim::barrier({"__syncthreads_count", file, line}, vote);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
[[noreturn]] inline void __trap() { shim::fail("__trap"); }
