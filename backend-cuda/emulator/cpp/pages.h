// Fresh memory between pages without access.
#pragma once

#include <cstddef>

#include <sys/mman.h>

namespace emulator {

class Pages {
public:
    // At least so many bytes; where there is no memory, `start` is null.
    explicit Pages(size_t bytes) : size((bytes + PAGE - 1) / PAGE * PAGE) {
        void* all = mmap(nullptr, FENCE + size + FENCE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED) return;
        first = static_cast<char*>(all) + FENCE;
        if (mprotect(first, size, PROT_READ | PROT_WRITE) == 0) return;
        munmap(all, FENCE + size + FENCE);
        first = nullptr;
    }
    ~Pages() {
        if (first) munmap(first - FENCE, FENCE + size + FENCE);
    }
    Pages(const Pages&) = delete;

    char* start() const { return first; }
    char* end() const { return first + size; }

private:
    static constexpr size_t PAGE = 4096, FENCE = 1024 * 1024;

    size_t size;
    char* first = nullptr;
};

}  // namespace emulator
