// Adam's recurrence on one number. With c1 = 1 - b1^t, c2 = 1 - b2^t:
//
//     M <- b1 M + (1 - b1) X,  V <- b2 V + (1 - b2) X X
//     N = (M / c1) / (sqrt(V / c2) + eps) = k M / (sqrt(V) + e),  k = sqrt(c2) / c1,  e = eps sqrt(c2)
//
// with AMSGrad, the largest V so far in the place of V.
#pragma once
#include "number.cuh"

template <class T> struct Adam {
    T beta1, new1, beta2, new2, k, eps;

    DEVICE Adam(const Hyper& hyper, double k, double eps)
        : beta1(T(hyper.beta1)), new1(T(1.0 - hyper.beta1)), beta2(T(hyper.beta2)),
          new2(T(1.0 - hyper.beta2)), k(T(k)), eps(T(eps)) {}

    DEVICE T mean(T old, T x) const { return fma(new1, x, beta1 * old); }
    DEVICE T square(T old, T x) const { return fma(new2 * x, x, beta2 * old); }
    DEVICE T direction(T first, T second) const { return k * first / (sqrt(second) + eps); }
};

// The larger of two numbers; NaN where one is NaN, so that a check after the step finds it.
template <class T> DEVICE T nan_max(T x, T y) { return x >= y ? x : (x < y ? y : x + y); }
