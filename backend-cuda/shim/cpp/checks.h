// What the compiler's own checks call (-fsanitize=alignment,bounds), where they are asked for:
// errors of the launch here.
#pragma once

#include <cstdint>

#include "machine.h"

namespace shim {

// The compiler's description of a place that it checks.
struct CheckedPlace {
    const char* file;
    unsigned line, column;
};

}  // namespace shim

// Only the compiler calls them, which it does not count as a use.
#define SHIM_CHECK extern "C" __attribute__((used, visibility("hidden"))) void

SHIM_CHECK __ubsan_handle_type_mismatch_v1(shim::CheckedPlace* place, uintptr_t address) {
    shim::fail("misaligned access at address %#zx (%s:%u)", size_t(address), place->file, place->line);
}

SHIM_CHECK __ubsan_handle_out_of_bounds(shim::CheckedPlace* place, uintptr_t index) {
    shim::fail("index %zd is outside of an array (%s:%u)", ssize_t(index), place->file, place->line);
}
