// Storage types: how numbers are read, rounded and written.
#pragma once
#include "model.cuh"
#include "platform.cuh"

DEVICE float as_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 as_bits(float x) { return __float_as_uint(x); }

// A storage type: its bytes, and what they stand for.
struct Stored64 { typedef double Bytes; static DEVICE double widen(double x) { return x; } };
struct Stored32 { typedef float Bytes; static DEVICE float widen(float x) { return x; } };
struct Stored16b { typedef u16 Bytes; static DEVICE float widen(u16 x) { return as_float(u32(x) << 16); } };
struct Stored16h { typedef u16 Bytes; static DEVICE float widen(u16 x) { return half_to_float(x); } };

// x to the nearest bf16, to even in a tie; a NaN stays one.
DEVICE u16 nearest_bf16(float x) {
    u32 bits = as_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return u16(bits >> 16 | 0x40);
    return u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// x in f32, rounded toward zero with the last bit set where anything was cut off: rounding that to
// a shorter type rounds x itself.
DEVICE float to_odd(double x) {
    float near = float(x);
    if (double(near) == x || x != x || isinf(near)) return near;
    bool beyond = fabs(double(near)) > fabs(x);
    return as_float((as_bits(near) - u32(beyond)) | 1u);
}
DEVICE float to_odd(float x) { return x; }

// A bijection of 32 bits in which every bit of the input moves every bit of the output.
DEVICE u32 mix(u32 x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

// What random numbers follow from: a name, a tensor, a step; and an entry.
struct Seed {
    u32 state;
    DEVICE u32 at(u64 entry) const {
        return mix(u32(entry) * 0x9e3779b9u ^ state ^ u32(entry >> 32));
    }
};

DEVICE Seed seed_of(u32 name, u32 tensor, u64 step) {
    return Seed{mix(name ^ mix(tensor + mix(u32(step ^ step >> 32))))};
}

// x cut to bf16 after a random amount below its last place was added to its magnitude.
DEVICE u16 stochastic_bf16(float x, u32 random) {
    return u16((as_bits(x) + (random >> 16)) >> 16);
}

// The same for f16. Below 2^-14 its numbers are evenly spaced, so that more bits are cut.
DEVICE u16 stochastic_f16(float x, u32 random) {
    int exponent = int(as_bits(x) >> 23 & 0xff) - 127;
    int cut = min(13 + max(-14 - exponent, 0), 24);
    if (cut == 24) {
        // Less than the smallest f16 number, 2^-24: 0 or that, in proportion.
        bool up = float(random >> 8) < fabsf(x) * 281474976710656.0f;
        return u16((as_bits(x) >> 31) << 15 | u32(up));
    }
    u32 noisy = as_bits(x) + (random >> (32 - cut));
    return float_to_half(as_float(noisy >> cut << cut));
}

// How a number is rounded where it is stored.
struct Round {
    bool stochastic;
    Seed seed;
};

// x as `dtype` stores it, at element `at` of memory.
template <class T> DEVICE void store(char* base, i64 at, int dtype, T x, Round round, u64 entry) {
    base = global(base);
    switch (dtype) {
    case F64: reinterpret_cast<double*>(base)[at] = double(x); break;
    case F32: reinterpret_cast<float*>(base)[at] = float(x); break;
    case BF16:
        reinterpret_cast<u16*>(base)[at] = round.stochastic
            ? stochastic_bf16(float(x), round.seed.at(entry)) : nearest_bf16(to_odd(x));
        break;
    default:
        reinterpret_cast<u16*>(base)[at] = round.stochastic
            ? stochastic_f16(float(x), round.seed.at(entry)) : float_to_half(to_odd(x));
    }
}

template <class T> DEVICE T load(const char* base, i64 at, int dtype) {
    base = global(base);
    switch (dtype) {
    case F64: return T(reinterpret_cast<const double*>(base)[at]);
    case F32: return T(reinterpret_cast<const float*>(base)[at]);
    case BF16: return T(Stored16b::widen(reinterpret_cast<const u16*>(base)[at]));
    default: return T(Stored16h::widen(reinterpret_cast<const u16*>(base)[at]));
    }
}

// A master copy's number in the place of the parameter, where the parameter is its rounding. Another
// value was written by the caller since the last step, and stays.
template <class T> DEVICE T prefer_master(T value, float master, int dtype) {
    float stored = dtype == BF16 ? Stored16b::widen(nearest_bf16(master))
                                 : Stored16h::widen(float_to_half(master));
    return T(stored) == value ? T(master) : value;
}
