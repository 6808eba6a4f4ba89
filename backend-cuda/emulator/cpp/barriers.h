// Barriers and fences of a block.
#pragma once

#include "site.h"
#include "wait.h"

inline void __syncthreads(EMULATOR_HERE) { emulator::barrier({"__syncthreads", file, line}, false); }
inline int __syncthreads_or(int vote, EMULATOR_HERE) {
    return emulator::barrier({"__syncthreads_or", file, line}, vote) > 0;
}
inline int __syncthreads_and(int vote, EMULATOR_HERE) {
    return emulator::barrier({"__syncthreads_and", file, line}, vote) == emulator::THREADS;
}
inline int __syncthreads_count(int vote, EMULATOR_HERE) {
    return emulator::barrier({"__syncthreads_count", file, line}, vote);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
[[noreturn]] inline void __trap() { emulator::fail("__trap"); }
