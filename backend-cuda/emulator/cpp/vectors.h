// CUDA's small vectors, as aligned as there.
#pragma once

#define EMULATOR_PAIR(NAME, T)                               \
    struct alignas(2 * sizeof(T)) NAME##2 { T x, y; };   \
    inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }
#define EMULATOR_FOUR(NAME, T)                                    \
    struct alignas(4 * sizeof(T)) NAME##4 { T x, y, z, w; };  \
    inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }

EMULATOR_PAIR(float, float)
EMULATOR_FOUR(float, float)
EMULATOR_PAIR(double, double)
EMULATOR_PAIR(int, int)
EMULATOR_FOUR(int, int)
EMULATOR_PAIR(uint, unsigned)
EMULATOR_FOUR(uint, unsigned)
EMULATOR_PAIR(ushort, unsigned short)
EMULATOR_FOUR(ushort, unsigned short)

#undef EMULATOR_PAIR
#undef EMULATOR_FOUR
