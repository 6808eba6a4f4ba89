//! Adam's recurrence on strips.

use crate::simd::{Isa, Real, Strip};

/// Adam's numbers at one step. With `c1 = 1 - b1^t`, `c2 = 1 - b2^t`:
///
/// ```text
/// N = (M / c1) / (sqrt(V / c2) + eps) = k M / (sqrt(V) + e),  k = sqrt(c2) / c1,  e = eps sqrt(c2)
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamNumbers<T> {
    pub(crate) beta1: T,
    pub(crate) new1: T,
    pub(crate) beta2: T,
    pub(crate) new2: T,
    pub(crate) k: T,
    pub(crate) eps: T,
}

impl<T: Real> AdamNumbers<T> {
    pub(crate) fn new(hyper: &lora_pro_core::Hyper, t: u64) -> Self {
        let c1 = 1.0 - hyper.beta1.powf(t as f64);
        let c2 = 1.0 - hyper.beta2.powf(t as f64);
        AdamNumbers {
            beta1: T::of(hyper.beta1),
            new1: T::of(1.0 - hyper.beta1),
            beta2: T::of(hyper.beta2),
            new2: T::of(1.0 - hyper.beta2),
            k: T::of(c2.sqrt() / c1),
            eps: T::of(hyper.eps * c2.sqrt()),
        }
    }
}

/// Averages `x` into the moments and replaces it by N.
#[inline(always)]
pub(crate) fn adam<S: Isa, T: Real>(
    simd: S,
    numbers: &AdamNumbers<T>,
    x: &mut Strip<T>,
    first: &mut Strip<T>,
    second: &mut Strip<T>,
    largest: Option<&mut Strip<T>>,
) {
    let (beta1, new1) = (T::splat(simd, numbers.beta1), T::splat(simd, numbers.new1));
    let (beta2, new2) = (T::splat(simd, numbers.beta2), T::splat(simd, numbers.new2));
    let (k, eps) = (T::splat(simd, numbers.k), T::splat(simd, numbers.eps));
    let x = T::vectors_mut::<S>(x);
    let (first, second) = (T::vectors_mut::<S>(first), T::vectors_mut::<S>(second));
    for ((x, m), v) in x.iter_mut().zip(first.iter_mut()).zip(second.iter_mut()) {
        *m = T::mul_add(simd, new1, *x, T::mul(simd, beta1, *m));
        *v = T::mul_add(simd, T::mul(simd, new2, *x), *x, T::mul(simd, beta2, *v));
        *x = *v;
    }
    if let Some(largest) = largest {
        for (x, l) in x.iter_mut().zip(T::vectors_mut::<S>(largest)) {
            *l = T::max(simd, *l, *x);
            *x = *l;
        }
    }
    for (x, m) in x.iter_mut().zip(first.iter()) {
        let root = T::add(simd, T::sqrt(simd, *x), eps);
        *x = T::div(simd, T::mul(simd, k, *m), root);
    }
}
