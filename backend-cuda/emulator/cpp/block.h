// Runs one block: from warp to warp until all 256 threads wait at a barrier or have returned.
// Whatever can then not go on is an error.
#pragma once

#include <algorithm>
#include <string>

#include "async.h"
#include "fiber.h"
#include "machine.h"
#include "report.h"
#include "wait.h"

namespace emulator {

// What every fiber runs.
inline void thread_body() {
    machine->body(machine->kernel);
    if (!own_copies().pending.empty()) fail("returns before its asynchronous copies have arrived");
    Warp& warp = *self->warp;
    const unsigned bit = 1u << self->lane;
    warp.ready &= ~bit;
    warp.returned |= bit;
    leave_for(next_ready(warp));
    __builtin_unreachable();
}

inline void start_threads() {
    for (unsigned number = 0; number < THREADS; number++) {
        Warp& warp = machine->warps[number / LANES];
        Thread& thread = warp.threads[number % LANES];
        thread.stack = fresh_stack(machine->stacks.top(number), thread_body);
        thread.index = {number, 0, 0};
        thread.lane = number % LANES;
        thread.warp = &warp;
    }
    for (Warp& warp : machine->warps) {
        warp.ready = ALL_LANES;
        warp.at_operation = warp.at_barrier = warp.returned = 0;
        warp.position = 0;
    }
    machine->votes = 0;
}

// Runs every warp until none of its threads is ready; whether there was anything to run.
inline bool run_warps() {
    bool ran = false;
    for (unsigned number : machine->warp_order) {
        self = next_ready(machine->warps[number]);
        if (!self) continue;
        ran = true;
        emulator_switch(&machine->stack, self->stack);
        if (!machine->error.empty()) return false;
    }
    return ran;
}

inline bool all_returned() {
    return std::all_of(machine->warps, machine->warps + WARPS,
                       [](const Warp& warp) { return warp.returned == ALL_LANES; });
}

// Lets all threads pass, if all of them wait at one and the same barrier.
inline bool pass_barrier() {
    const Site& site = machine->warps[0].threads[0].site;
    for (const Warp& warp : machine->warps) {
        if (warp.at_barrier != ALL_LANES) return false;
        for (const Thread& thread : warp.threads) {
            if (!(thread.site == site)) return false;
        }
    }
    for (Warp& warp : machine->warps) {
        warp.ready = ALL_LANES;
        warp.at_barrier = 0;
        warp.position = 0;
    }
    machine->counted = machine->votes;
    machine->votes = 0;
    return true;
}

// Runs one block, up to its end or the first error.
inline bool run_block(size_t shared_bytes) {
    machine->shared.poison(shared_bytes);
    forget_copies();
    start_threads();
    for (;;) {
        if (run_warps()) continue;
        if (!machine->error.empty()) return false;
        if (all_returned()) break;
        if (!pass_barrier()) return stop("deadlock or divergent barrier: " + stuck());
    }
    const char* found = machine->shared.overrun();
    if (!found) return true;
    return stop("shared memory overrun: byte " + std::to_string(found - machine->shared.start()) + " of " +
                std::to_string(shared_bytes) + " was written");
}

}  // namespace emulator
