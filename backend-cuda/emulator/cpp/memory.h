// The memory of a block: what its threads share, and a stack for each of them.
#pragma once

#include <algorithm>
#include <cstring>

#include "pages.h"
#include "threads.h"

namespace emulator {

// The shared memory of a block. It lies at the end of `pages`, with guard bytes before and behind.
class Shared {
public:
    bool there() const { return pages.start() != nullptr; }

    // Everything becomes 0xFF: NaN as a number, and what the guards must still be afterwards.
    void poison(size_t size) {
        bytes = size;
        first = pages.start() + (MOST - bytes) / ALIGNMENT * ALIGNMENT + GUARD;
        memset(first - GUARD, 0xFF, pages.end() - (first - GUARD));
    }

    char* start() const { return first; }

    // Null, or the first byte outside that was written.
    const char* overrun() const {
        if (const char* found = written(first - GUARD, first)) return found;
        return written(first + bytes, pages.end());
    }

    static constexpr size_t MOST = 227 * 1024;

private:
    static constexpr size_t GUARD = 4096, ALIGNMENT = 1024;

    static const char* written(const char* from, const char* to) {
        const char* found = std::find_if(from, to, [](char byte) { return byte != char(0xFF); });
        return found == to ? nullptr : found;
    }

    Pages pages{GUARD + MOST + GUARD};
    char* first = nullptr;
    size_t bytes = 0;
};

// The stacks of a block's threads. They are a little more than a power of two apart: at equal
// distances of a power of two they would all want the same lines of the cache.
class Stacks {
public:
    bool there() const { return pages.start() != nullptr; }
    char* top(unsigned thread) const { return pages.start() + (thread + 1) * EACH; }

private:
    static constexpr size_t EACH = 64 * 1024 + 3 * 64;

    Pages pages{THREADS * EACH};
};

}  // namespace emulator
