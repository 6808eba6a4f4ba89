// Where the threads of a block stand, in words.
#pragma once

#include <cstdio>
#include <string>

#include "machine.h"

namespace emulator {

// Where a thread stands, in words.
inline std::string standing(const Thread& thread) {
    const unsigned bit = 1u << thread.lane;
    if (thread.warp->returned & bit) return "returned";
    std::string text = "at " + std::string(thread.site.operation) + " (" + thread.site.file + ":" +
                       std::to_string(thread.site.line) + ")";
    if (thread.warp->at_operation & bit) {
        char mask[32];
        snprintf(mask, sizeof mask, " with mask %08x", thread.mask);
        text += mask;
    }
    return text;
}

// Where the threads stand when none can go on: runs of threads that stand at the same place.
inline std::string stuck() {
    constexpr unsigned MOST = 16;
    std::string text, last;
    unsigned from = 0, runs = 0;
    auto close = [&](unsigned to) {
        if (++runs > MOST) return;
        text += runs == 1 ? "" : "; ";
        text += from + 1 == to ? "thread " + std::to_string(from)
                               : "threads " + std::to_string(from) + " to " + std::to_string(to - 1);
        text += " " + last;
    };
    for (unsigned number = 0; number < THREADS; number++) {
        std::string now = standing(machine->warps[number / LANES].threads[number % LANES]);
        if (number > 0 && now != last) {
            close(number);
            from = number;
        }
        last = now;
    }
    close(THREADS);
    return text + (runs > MOST ? "; ..." : "");
}

}  // namespace emulator
