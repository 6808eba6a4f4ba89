// How threads wait for one another.
//
// A thread runs until it waits. At a warp operation it goes on to the next ready thread of its
// warp; the last one to arrive does the work of all. At a barrier likewise, until no thread of the
// warp is ready: then the machine goes on to another warp.
#pragma once

#include "fiber.h"
#include "machine.h"

namespace emulator {

// The work of a warp operation for the lanes of the mask: from `given` to `taken`.
using Exchange = void (*)(Warp&, unsigned mask);

// The next ready thread of a warp, or null.
inline Thread* next_ready(Warp& warp) {
    if (!warp.ready) return nullptr;
    for (;;) {
        unsigned lane = machine->lane_order[warp.position++ % LANES];
        if (warp.ready >> lane & 1) return &warp.threads[lane];
    }
}

// Leaves the running thread for another one, or for the machine (null).
inline void leave_for(Thread* next) {
    Thread* left = self;
    if (next == left) return;
    self = next;
    emulator_switch(&left->stack, next ? next->stack : machine->stack);
}

// Waits until all lanes of the mask are here; the last one does the exchange for all.
inline void warp_operation(unsigned mask, const Site& site, Exchange exchange) {
    Thread& me = *self;
    Warp& warp = *me.warp;
    const unsigned bit = 1u << me.lane;
    if (!(mask & bit)) {
        fail("%s (%s:%d) with a mask that leaves out the own lane", site.operation, site.file, site.line);
    }
    me.site = site;
    me.mask = mask;
    warp.ready &= ~bit;
    warp.at_operation |= bit;
    if ((warp.at_operation & mask) != mask) return leave_for(next_ready(warp));

    for (unsigned lane = 0; lane < LANES; lane++) {
        const Thread& other = warp.threads[lane];
        if (mask >> lane & 1 && !(other.mask == mask && other.site == site)) {
            fail("%s (%s:%d) meets lane %u at %s (%s:%d), or with another mask", site.operation, site.file,
                 site.line, lane, other.site.operation, other.site.file, other.site.line);
        }
    }
    exchange(warp, mask);
    warp.at_operation &= ~mask;
    warp.ready |= mask;
    warp.position = 0;
    leave_for(machine->takes_turns ? nullptr : next_ready(warp));
}

// Waits until all threads of the block are here; how many of them brought a vote.
inline unsigned barrier(const Site& site, bool vote) {
    Thread& me = *self;
    Warp& warp = *me.warp;
    const unsigned bit = 1u << me.lane;
    me.site = site;
    machine->votes += vote;
    warp.ready &= ~bit;
    warp.at_barrier |= bit;
    leave_for(next_ready(warp));
    return machine->counted;
}

}  // namespace emulator
