// An access outside of all memory, or a division by zero, becomes an error of the launch, not the end of the process.
#pragma once

#include <csignal>

#include <ucontext.h>

#include "machine.h"

namespace emulator {

EMULATOR_LOCAL const char* fault = nullptr;
EMULATOR_LOCAL const void* fault_address = nullptr;

inline struct sigaction& handler_before(int signal) {
    static struct sigaction handlers[NSIG];
    return handlers[signal];
}

inline void fault_body() { fail("%s (address %p)", fault, fault_address); }

// Sends the thread of the block that did it on to `fault_body`, on its own stack. What happens
// outside of kernels goes to the handler that was there before.
inline void on_fault(int signal, siginfo_t* about, void* context) {
    if (!self) {
        const struct sigaction& before = handler_before(signal);
        if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(signal, about, context);
        sigaction(signal, &before, nullptr);
        return;
    }
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    constexpr greg_t PAGE_FAULT_WRITES = 2, RED_ZONE = 128;
    const bool writes = registers[REG_ERR] & PAGE_FAULT_WRITES;
    fault = signal == SIGFPE ? "integer division by zero"
            : writes         ? "write outside of the device's memory"
                             : "read outside of the device's memory";
    fault_address = about->si_addr;
    registers[REG_RSP] = ((registers[REG_RSP] - RED_ZONE) & ~greg_t(15)) - 8;
    registers[REG_RIP] = reinterpret_cast<greg_t>(fault_body);
}

inline bool install_fault_handler() {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(signal, &action, &handler_before(signal));
    return true;
}

inline void watch_faults() {
    static const bool installed = install_fault_handler();
    (void)installed;
}

}  // namespace emulator
