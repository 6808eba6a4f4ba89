// What the compiler's own checks call (-fsanitize=alignment,bounds), where they are asked for:
// errors of the launch here.
#pragma once

#include <cstdint>

#include "machine.h"

namespace emulator {

// The compiler's description of a place that it checks.
struct CheckedPlace {
    const char* file;
    unsigned line, column;
};

}  // namespace emulator

// Only the compiler calls them, which it does not count as a use.
#define EMULATOR_CHECK extern "C" __attribute__((used, visibility("hidden"))) void

EMULATOR_CHECK __ubsan_handle_type_mismatch_v1(emulator::CheckedPlace* place, uintptr_t address) {
    emulator::fail("misaligned access at address %#zx (%s:%u)", size_t(address), place->file, place->line);
}

EMULATOR_CHECK __ubsan_handle_out_of_bounds(emulator::CheckedPlace* place, uintptr_t index) {
    emulator::fail("index %zd is outside of an array (%s:%u)", ssize_t(index), place->file, place->line);
}
