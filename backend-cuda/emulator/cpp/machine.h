// The machine: what one operating system thread runs kernels on.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <string>
#include <vector>

#include "fiber.h"
#include "memory.h"
#include "threads.h"

namespace emulator {

// Calls the kernel: the body of every thread.
using Body = void (*)(const void* kernel);

// A copy that a thread has started, and the group that it belongs to.
struct Copy {
    void* to;
    const void* from;
    unsigned bytes, group;
};

struct Copies {
    std::vector<Copy> pending;
    unsigned groups = 0;  // that were closed
};

struct Machine {
    Warp warps[WARPS];
    Copies copies[THREADS];
    std::vector<unsigned> warp_order, lane_order;
    uint3 block, grid;
    Body body;
    const void* kernel;
    bool takes_turns;
    unsigned votes, counted;  // of the barrier: so far, and when it was last passed
    void* stack;              // the machine's own, while a thread runs
    std::string error;
    Shared shared;
    Stacks stacks;
};

// Of this operating system thread: the machine, and the thread of the block that runs now.
#define EMULATOR_LOCAL static thread_local __attribute__((tls_model("initial-exec")))
EMULATOR_LOCAL Machine* machine = nullptr;
EMULATOR_LOCAL Thread* self = nullptr;

// Notes an error of the running block; always false.
inline bool stop(const std::string& text) {
    machine->error = "block " + std::to_string(machine->block.x) + ": " + text;
    return false;
}

// Ends the launch with an error, from within a thread.
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
    char text[512];
    va_list rest;
    va_start(rest, format);
    vsnprintf(text, sizeof text, format, rest);
    va_end(rest);
    stop("thread " + std::to_string(self->index.x) + ": " + text);
    self = nullptr;
    void* never_again;
    emulator_switch(&never_again, machine->stack);
    __builtin_unreachable();
}

}  // namespace emulator
