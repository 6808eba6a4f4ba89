// The way in: comes after the kernels, whose `Launch` it needs.
#pragma once

#include "emulator.h"

namespace emulator {

struct Kernel {
    void (*function)(Launch);
    const Launch* argument;
};

inline void call(const void* kernel) {
    const Kernel* called = static_cast<const Kernel*>(kernel);
    called->function(*called->argument);
}

// Null, or what went wrong: the text stays until the next launch of the same thread.
inline const char* launch(const Kernel& kernel, unsigned grid, unsigned shared_bytes, int number) {
    // On the heap: a library that is loaded at run time may have but few thread-local bytes.
    static thread_local std::unique_ptr<Machine> own = std::make_unique<Machine>();
    Machine& here = *own;
    if (!here.stacks.there() || !here.shared.there()) return "no memory for a block";
    if (shared_bytes > Shared::MOST) return "more shared memory than a block can have";
    Order order(number);
    const std::vector<unsigned> blocks = order.of(grid);
    here.warp_order = order.of(WARPS);
    here.lane_order = order.of(LANES);
    here.takes_turns = order.takes_turns();
    here.grid = {grid, 1, 1};
    here.body = call;
    here.kernel = &kernel;
    here.error.clear();
    machine = &here;
    watch_faults();
    for (unsigned block : blocks) {
        here.block = {block, 0, 0};
        if (!run_block(shared_bytes)) break;
    }
    self = nullptr;
    machine = nullptr;
    return here.error.empty() ? nullptr : here.error.c_str();
}

}  // namespace emulator

// Runs a kernel on a grid of blocks of 256 threads, in an order that `emulator::Order` explains.
extern "C" __attribute__((visibility("default"))) const char* emulator_launch(
    void (*function)(Launch), unsigned grid, unsigned shared_bytes, const Launch* argument, int order) {
    return emulator::launch({function, argument}, grid, shared_bytes, order);
}
