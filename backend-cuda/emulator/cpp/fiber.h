// A fiber: a stack of its own that is left and taken up again by hand.
#pragma once

#if !defined(__x86_64__) || !defined(__linux__)
#error "The CPU emulator switches stacks by hand, which is written for x86-64 Linux only."
#endif

#include <cstddef>
#include <cstdint>

// Leaves the running stack, noting its pointer in `left`, and goes on where `entered` was left.
extern "C" void emulator_switch(void** left, void* entered);

// What a call must keep is pushed; everything else the caller has saved already. The jump in the
// place of `ret` is what the processor predicts well: most fibers go on at the same address.
asm(R"(
.text
.hidden emulator_switch
.globl emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
.size emulator_switch, .-emulator_switch
)");

namespace emulator {

// A stack below `top` (a multiple of 16) that starts with `entry`, which must never return.
inline void* fresh_stack(char* top, void (*entry)()) {
    constexpr size_t SAVED_REGISTERS = 6;
    void** stack = reinterpret_cast<void**>(top);
    *--stack = nullptr;  // in the place of a return address, as after a call
    *--stack = reinterpret_cast<void*>(entry);
    return stack - SAVED_REGISTERS;
}

}  // namespace emulator
