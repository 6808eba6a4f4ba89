// Atomics, and loads and stores with a cache hint. One thread runs at a time and there is no cache
// to speak of, so that all of them are plain.
#pragma once

namespace emulator {

// The type of an argument that has no part in finding T.
template <class T>
struct GivenType {
    using type = T;
};
template <class T>
using Given = typename GivenType<T>::type;

// Gives the old value and stores the new one.
template <class T>
inline T exchanged(T* at, T value) {
    T old = *at;
    *at = value;
    return old;
}

}  // namespace emulator

#define EMULATOR_ATOMIC(NAME, NEW)                           \
    template <class T>                                   \
    inline T NAME(T* at, emulator::Given<T> value) {         \
        return emulator::exchanged(at, static_cast<T>(NEW)); \
    }
EMULATOR_ATOMIC(atomicAdd, *at + value)
EMULATOR_ATOMIC(atomicSub, *at - value)
EMULATOR_ATOMIC(atomicAnd, *at & value)
EMULATOR_ATOMIC(atomicOr, *at | value)
EMULATOR_ATOMIC(atomicXor, *at ^ value)
EMULATOR_ATOMIC(atomicMin, value < *at ? value : *at)
EMULATOR_ATOMIC(atomicMax, value > *at ? value : *at)
EMULATOR_ATOMIC(atomicExch, value)
#undef EMULATOR_ATOMIC

template <class T>
inline T atomicCAS(T* at, emulator::Given<T> expected, emulator::Given<T> value) {
    return emulator::exchanged(at, *at == expected ? value : *at);
}

template <class T>
inline T __ldg(const T* at) {
    return *at;
}
template <class T>
inline T __ldcs(const T* at) {
    return *at;
}
template <class T>
inline T __ldcg(const T* at) {
    return *at;
}
template <class T>
inline void __stcs(T* at, emulator::Given<T> value) {
    *at = value;
}
template <class T>
inline void __stcg(T* at, emulator::Given<T> value) {
    *at = value;
}
