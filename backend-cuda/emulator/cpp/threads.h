// Threads and warps, and what they wait at.
#pragma once

#include <cstdint>
#include <cstring>

struct uint3 {
    unsigned x, y, z;
};
using dim3 = uint3;

namespace emulator {

constexpr unsigned LANES = 32;
constexpr unsigned WARPS = 8;
constexpr unsigned THREADS = LANES * WARPS;
constexpr unsigned ALL_LANES = ~0u;

// What a thread waits at, and where in the source.
struct Site {
    const char* operation;
    const char* file;
    int line;

    static bool same(const char* a, const char* b) { return a == b || strcmp(a, b) == 0; }

    bool operator==(const Site& other) const {
        return line == other.line && same(operation, other.operation) && same(file, other.file);
    }
};

struct Warp;

// What is touched at every switch comes first, in one line of the cache.
struct alignas(64) Thread {
    void* stack;  // its pointer, while the thread does not run
    uint3 index;
    unsigned lane;
    Warp* warp;
    Site site;
    unsigned mask;
    uint64_t given[4];  // what it brings to a warp operation
    uint64_t taken[2];  // and what it gets
};

struct Warp {
    // Sets of lanes: each lane is in exactly one of them.
    unsigned ready, at_operation, at_barrier, returned;
    unsigned position;  // in the order of the lanes: where to look for the next ready one
    Thread threads[LANES];
};

}  // namespace emulator
