// 8-bit codes of moments: short floating-point numbers with three bits after the leading one.
//
// With OFFSET = 1023 - TOP, the code c > 0 stands for the f32 number with the bits
// (c + OFFSET) << 20, times the scale of its block; 0 stands for 0. The largest entry of a block has
// the code TOP, whose number is 1.875. First moments have a sign and codes up to 127, second ones
// codes up to 255. Rounding is stochastic; a second moment never becomes 0, since N divides by its
// root.
#pragma once
#include "number.cuh"

struct Fp8Format {
    bool positive;
    DEVICE int top() const { return positive ? 255 : 127; }
    DEVICE int offset() const { return 1023 - top(); }

    DEVICE float decode(u8 code) const {
        int size = code & top();
        float x = size == 0 ? 0.0f : as_float(u32(size + offset()) << 20);
        return code > top() ? -x : x;
    }

    // The code of a number that was divided by the scale.
    DEVICE u8 encode(float x, u32 random) const {
        float size = fabsf(x);
        int cut = int((as_bits(size) + (random >> 12)) >> 20) - offset();
        float smallest = as_float(u32(1 + offset()) << 20);
        bool up = positive ? size > 0.0f : float(random >> 8) * (smallest / 16777216.0f) < size;
        int code = cut < 1 ? int(up) : min(cut, top());
        return u8(code | int(!positive && x < 0.0f) << 7);
    }
};

constexpr float LARGEST_CODE = 1.875f;

// Below this a block's largest entry counts as 0: its inverse would overflow.
constexpr float MIN_BLOCK_MAX = 1e-37f;
