// Atomics, and loads and stores with a cache hint. One thread runs at a time and there is no cache
// to speak of, so that all of them are plain.
#pragma once

namespace shim {

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

}  // namespace shim

#define SHIM_ATOMIC(NAME, NEW)                           \
    template <class T>                                   \
    inline T NAME(T* at, shim::Given<T> value) {         \
        return shim::exchanged(at, static_cast<T>(NEW)); \
    }
SHIM_ATOMIC(atomicAdd, *at + value)
SHIM_ATOMIC(atomicSub, *at - value)
SHIM_ATOMIC(atomicAnd, *at & value)
SHIM_ATOMIC(atomicOr, *at | value)
SHIM_ATOMIC(atomicXor, *at ^ value)
SHIM_ATOMIC(atomicMin, value < *at ? value : *at)
SHIM_ATOMIC(atomicMax, value > *at ? value : *at)
SHIM_ATOMIC(atomicExch, value)
#undef SHIM_ATOMIC

template <class T>
inline T atomicCAS(T* at, shim::Given<T> expected, shim::Given<T> value) {
    return shim::exchanged(at, *at == expected ? value : *at);
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
inline void __stcs(T* at, shim::Given<T> value) {
    *at = value;
}
template <class T>
inline void __stcg(T* at, shim::Given<T> value) {
    *at = value;
}
