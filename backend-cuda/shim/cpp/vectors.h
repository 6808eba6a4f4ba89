// CUDA's small vectors, as aligned as there.
#pragma once

#define SHIM_PAIR(NAME, T)                               \
    struct alignas(2 * sizeof(T)) NAME##2 { T x, y; };   \
    inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }
#define SHIM_FOUR(NAME, T)                                    \
    struct alignas(4 * sizeof(T)) NAME##4 { T x, y, z, w; };  \
    inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }

SHIM_PAIR(float, float)
SHIM_FOUR(float, float)
SHIM_PAIR(double, double)
SHIM_PAIR(int, int)
SHIM_FOUR(int, int)
SHIM_PAIR(uint, unsigned)
SHIM_FOUR(uint, unsigned)
SHIM_PAIR(ushort, unsigned short)
SHIM_FOUR(ushort, unsigned short)

#undef SHIM_PAIR
#undef SHIM_FOUR
