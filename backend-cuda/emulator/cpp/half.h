// f16 from and to f32, as cvt.f32.f16 and cvt.rn.f16.f32 have it.
#pragma once

#include <cstdint>
#include <cstring>

#include <math.h>

inline float half_to_float(unsigned short bits) {
    const unsigned exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                 : exponent == 0 ? ldexpf(float(fraction), -24)
                                 : ldexpf(float(fraction | 0x400), int(exponent) - 25);
    return bits & 0x8000 ? -size : size;
}

inline unsigned short float_to_half(float x) {
    const unsigned sign = signbit(x) ? 0x8000 : 0;
    const float size = fabsf(x);
    if (isnan(x)) return 0x7fff;
    if (size >= 65520.0f) return sign | 0x7c00;
    // In units of the last place (of the smallest numbers, below 2^-14), to nearest, ties to even.
    const int exponent = size < 0x1p-14f ? -14 : ilogbf(size);
    const unsigned units = unsigned(rintf(ldexpf(size, 10 - exponent)));
    // Units start at 0x400 but for the smallest numbers; what is carried goes up one exponent.
    return sign | (unsigned(exponent + 14) * 0x400 + units);
}
