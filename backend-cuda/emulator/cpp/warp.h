// Operations of a warp: shuffles and votes.
#pragma once

#include "bits.h"
#include "site.h"
#include "wait.h"

namespace emulator {

// Each lane of the mask takes what the lane that it names has given.
inline void shuffle(Warp& warp, unsigned mask) {
    for (unsigned lane = 0; lane < LANES; lane++) {
        if (!(mask >> lane & 1)) continue;
        const uint64_t source = warp.threads[lane].given[1];
        if (!(mask >> source & 1)) {
            fail("lane %u shuffles from lane %u, outside of the mask", lane, unsigned(source));
        }
        warp.threads[lane].taken[0] = warp.threads[source].given[0];
    }
}

// Each lane of the mask takes the set of lanes that have given a vote.
inline void ballot(Warp& warp, unsigned mask) {
    uint64_t votes = 0;
    for (unsigned lane = 0; lane < LANES; lane++) {
        if (mask >> lane & 1) votes |= warp.threads[lane].given[0] << lane;
    }
    for (Thread& thread : warp.threads) {
        if (mask >> thread.lane & 1) thread.taken[0] = votes;
    }
}

inline void nothing(Warp&, unsigned) {}

template <class T>
inline T shuffle_from(unsigned mask, T value, unsigned source, const Site& site) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "32 or 64 bits are shuffled");
    self->given[0] = same_bits<uint64_t>(value);
    self->given[1] = source;
    warp_operation(mask, site, shuffle);
    return from_bits<T>(self->taken[0]);
}

inline unsigned ballot_of(unsigned mask, bool vote, const Site& site) {
    self->given[0] = vote;
    warp_operation(mask, site, ballot);
    return static_cast<unsigned>(self->taken[0]);
}

}  // namespace emulator

inline void __syncwarp(unsigned mask = ~0u, EMULATOR_HERE) {
    emulator::warp_operation(mask, {"__syncwarp", file, line}, emulator::nothing);
}

// Lanes are exchanged in groups of `width`; a lane beyond the group means the own one.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_HERE) {
    unsigned group = emulator::self->lane & ~(width - 1u);
    return emulator::shuffle_from(mask, value, group | (source & (width - 1u)), {"__shfl_sync", file, line});
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMULATOR_HERE) {
    unsigned lane = emulator::self->lane, source = lane ^ unsigned(bits);
    if (source > (lane | (width - 1u))) source = lane;
    return emulator::shuffle_from(mask, value, source, {"__shfl_xor_sync", file, line});
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32, EMULATOR_HERE) {
    unsigned lane = emulator::self->lane, source = lane + distance;
    if (source > (lane | (width - 1u))) source = lane;
    return emulator::shuffle_from(mask, value, source, {"__shfl_down_sync", file, line});
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32, EMULATOR_HERE) {
    unsigned lane = emulator::self->lane, group = lane & ~(width - 1u);
    unsigned source = lane < group + distance ? lane : lane - distance;
    return emulator::shuffle_from(mask, value, source, {"__shfl_up_sync", file, line});
}
inline unsigned __ballot_sync(unsigned mask, int vote, EMULATOR_HERE) {
    return emulator::ballot_of(mask, vote, {"__ballot_sync", file, line});
}
inline int __any_sync(unsigned mask, int vote, EMULATOR_HERE) {
    return emulator::ballot_of(mask, vote, {"__any_sync", file, line}) != 0;
}
inline int __all_sync(unsigned mask, int vote, EMULATOR_HERE) {
    return emulator::ballot_of(mask, vote, {"__all_sync", file, line}) == mask;
}
