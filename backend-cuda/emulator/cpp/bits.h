// Bits of numbers.
#pragma once

#include <cstdint>
#include <cstring>

namespace emulator {

template <class To, class From>
inline To same_bits(From value) {
    static_assert(sizeof(To) >= sizeof(From));
    To bits{};
    memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class T>
inline T from_bits(uint64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace emulator

inline unsigned __float_as_uint(float value) { return emulator::same_bits<unsigned>(value); }
inline int __float_as_int(float value) { return emulator::same_bits<int>(value); }
inline float __uint_as_float(unsigned bits) { return emulator::same_bits<float>(bits); }
inline float __int_as_float(int bits) { return emulator::same_bits<float>(bits); }
inline long long __double_as_longlong(double value) { return emulator::same_bits<long long>(value); }
inline double __longlong_as_double(long long bits) { return emulator::same_bits<double>(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
