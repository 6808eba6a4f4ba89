// Asynchronous copies into shared memory: done at the last moment, when the thread waits for them.
// A kernel that reads too early finds what was there before.
#pragma once

#include <cstring>

#include "wait.h"

namespace emulator {

inline Copies& own_copies() { return machine->copies[self->index.x]; }

inline void forget_copies() {
    for (Copies& copies : machine->copies) {
        copies.pending.clear();
        copies.groups = 0;
    }
}

}  // namespace emulator

template <int BYTES>
inline void copy_async(void* to, const void* from) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "what the hardware can copy");
    if (reinterpret_cast<uintptr_t>(to) % BYTES || reinterpret_cast<uintptr_t>(from) % BYTES)
        emulator::fail("an asynchronous copy of %d bytes is not aligned", BYTES);
    emulator::Copies& copies = emulator::own_copies();
    copies.pending.push_back({to, from, BYTES, copies.groups});
}

inline void commit_async() { emulator::own_copies().groups++; }

// Waits for all groups but the last `REST`. Other threads of the warp go on before this one does: what
// they copy to the same place is there first.
template <int REST>
inline void wait_async() {
    emulator::Copies& copies = emulator::own_copies();
    size_t kept = 0;
    for (const emulator::Copy& copy : copies.pending) {
        if (copy.group + REST < copies.groups) memcpy(copy.to, copy.from, copy.bytes);
        else copies.pending[kept++] = copy;
    }
    copies.pending.resize(kept);
    emulator::leave_for(emulator::next_ready(*emulator::self->warp));
}
