// A tensor core's product on the host.
#pragma once

#include <math.h>

#include "bits.h"
#include "site.h"
#include "wait.h"

namespace emulator {

// D += A B with A 8 x 4, B 4 x 8: lane l gives A[l / 4][l % 4], B[l % 4][l / 4] and both of
// D[l / 4][2 (l % 4) + {0, 1}].
inline void multiply_f64(Warp& warp, unsigned) {
    double a[8][4], b[4][8], d[8][8];
    for (const Thread& thread : warp.threads) {
        const unsigned high = thread.lane / 4, low = thread.lane % 4;
        d[high][2 * low] = from_bits<double>(thread.given[0]);
        d[high][2 * low + 1] = from_bits<double>(thread.given[1]);
        a[high][low] = from_bits<double>(thread.given[2]);
        b[low][high] = from_bits<double>(thread.given[3]);
    }
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned k = 0; k < 4; k++) {
            for (unsigned j = 0; j < 8; j++) d[i][j] = fma(a[i][k], b[k][j], d[i][j]);
        }
    }
    for (Thread& thread : warp.threads) {
        const unsigned high = thread.lane / 4, low = thread.lane % 4;
        thread.taken[0] = same_bits<uint64_t>(d[high][2 * low]);
        thread.taken[1] = same_bits<uint64_t>(d[high][2 * low + 1]);
    }
}

}  // namespace emulator

// mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64
inline void mma_f64(double (&d)[2], double a, double b, EMULATOR_HERE) {
    const double given[4] = {d[0], d[1], a, b};
    for (unsigned i = 0; i < 4; i++) emulator::self->given[i] = emulator::same_bits<uint64_t>(given[i]);
    emulator::warp_operation(emulator::ALL_LANES, {"mma_f64", file, line}, emulator::multiply_f64);
    for (unsigned i = 0; i < 2; i++) d[i] = emulator::from_bits<double>(emulator::self->taken[i]);
}
