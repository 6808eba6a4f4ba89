//! What a step must at least move and compute.
//!
//! **Bytes.** Compulsory is what no implementation can avoid: every array that the step changes is
//! read once and written once, every array that it only looks at is read once. An r x r matrix
//! costs nothing.
//!
//! | method | read and written | read |
//! |---|---|---|
//! | efficient | A, B, and two moments of each | gA, gB |
//! | factored | A, B, Y, Z, row and column means | gA, gB |
//! | full | M and V2, with the scales of 8-bit codes | |
//! | lora | as efficient | gA, gB |
//! | sgd | A, B, and momentum where there is some | gA, gB |
//!
//! In the full mode the thin arrays are left out: at 4096 x 4096 and r = 8 they are less than 1 %.
//!
//! **Operations.** A product of p x q and q x w has 2 p q w. A symmetric result needs half of that.
//! What does not grow with m or n is left out: the r x r systems. So are element-wise operations.
//!
//! *Full*: 8 r m n. E = [B V][U; A] has 4 r m n, B'N and N A' have 2 r m n each.
//!
//! *LoRA* has no products. *SGD* has the efficient mode's.
//!
//! *Efficient*: 8 r² (m + n). For each factor F (A, or B transposed) of k columns and its gradient
//! G:
//!
//! | what | operations |
//! |---|---|
//! | [F; G][F; G]', symmetric, 2r x 2r: Gram matrices, cross products, norms of the report | 4 r² k |
//! | dF = P G + T F with r x r matrices P and T | 4 r² k |
//!
//! *Factored*: r² (28 n + 32 m). The equivalent gradient is [B sV][sU; A]; N is
//! Da (B Y + Z A) Db, so that B'N, N A' and their closed form are r x r matrices times Y, Z, A, B:
//!
//! | what | on A's side (k = n) | on B's side (k = m) |
//! |---|---|---|
//! | [F; G][F; G]' as above | 4 r² k | 4 r² k |
//! | U = P gA, and V = gB P + B T | 2 r² k | 4 r² k |
//! | column and row means: x'K x = \|L'x\|² for 2r numbers x, K = L L', L triangular | 4 r² k | 4 r² k |
//! | weighted: A Db A' (symmetric), Y Db A'; B'Da B (symmetric), B'Da Z | 3 r² k | 3 r² k |
//! | dA from Y, A (scaled by Db) and A; dB from Z, B (scaled by Da) and B | 6 r² k | 6 r² k |
//! | new Gram matrix (symmetric); Y A', A A'; B'B, B'Z of old with new factors | 5 r² k | 5 r² k |
//! | new Y from Y, A; new Z from Z, B and the new B | 4 r² k | 6 r² k |
//!
//! An implementation may do more than this (a full product instead of a symmetric half), and then
//! has a lower rate by this count.

use lora_pro_core::backend::adapter_layout;
use lora_pro_core::{AdapterSpec, Hyper, Method};

/// What one step must at least do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of arrays that are read and written.
    pub in_place: u64,
    /// Bytes of arrays that are only read.
    pub read: u64,
    /// Floating-point operations, additions and multiplications counted each.
    pub operations: u64,
}

impl Cost {
    /// Of a whole model.
    pub fn of(specs: &[AdapterSpec], hyper: &Hyper) -> Self {
        let mut sum = Cost::default();
        for spec in specs {
            let one = Cost::of_one(spec, hyper);
            sum.in_place += one.in_place;
            sum.read += one.read;
            sum.operations += one.operations;
        }
        sum
    }

    /// Bytes that go to or come from memory.
    pub fn traffic(&self) -> u64 {
        2 * self.in_place + self.read
    }

    fn of_one(spec: &AdapterSpec, hyper: &Hyper) -> Self {
        let [m, n, r] = [spec.m, spec.n, spec.r].map(|k| k as u64);
        let factors = r * (m + n) * spec.dtype.size() as u64;
        let layout = adapter_layout(spec, hyper);
        let state: u64 = layout.iter().map(|tensor| tensor.bytes() as u64).sum();
        let [in_place, read, operations] = match hyper.method {
            Method::Full => [state, 0, 8 * r * m * n],
            Method::Lora => [state + factors, factors, 0],
            Method::Sgd | Method::Efficient => [state + factors, factors, 8 * r * r * (m + n)],
            Method::Factored => [state + factors, factors, r * r * (28 * n + 32 * m)],
        };
        Cost {
            in_place,
            read,
            operations,
        }
    }
}

#[cfg(test)]
mod tests {
    use lora_pro_core::{MomentDType, Preset, Scale};

    use super::*;

    /// m = 3, n = 2, r = 1 in f32.
    fn cost(method: Method, moment_dtype: MomentDType) -> Cost {
        let spec = AdapterSpec::new("w", 3, 2, 1).scale(Scale::Explicit(1.0));
        let hyper = Preset::Recommended
            .hyper()
            .method(method)
            .moment_dtype(moment_dtype);
        Cost::of(&[spec.clone(), spec], &hyper)
    }

    #[test]
    fn efficient_by_hand() {
        let cost = cost(Method::Efficient, MomentDType::F32);
        // Five parameters with two moments each, two adapters, four bytes.
        assert_eq!(cost.in_place, 2 * 4 * 15);
        assert_eq!(cost.read, 2 * 4 * 5);
        assert_eq!(cost.traffic(), 2 * 4 * 35);
        assert_eq!(cost.operations, 2 * 8 * 5);
    }

    #[test]
    fn factored_by_hand() {
        let cost = cost(Method::Factored, MomentDType::F32);
        // Parameters, Y and Z, and five means.
        assert_eq!(cost.in_place, 2 * 4 * 15);
        assert_eq!(cost.read, 2 * 4 * 5);
        assert_eq!(cost.operations, 2 * (28 * 2 + 32 * 3));
    }

    #[test]
    fn full_by_hand() {
        let f32 = cost(Method::Full, MomentDType::F32);
        assert_eq!((f32.in_place, f32.read), (2 * 2 * 6 * 4, 0));
        assert_eq!(f32.operations, 2 * 8 * 6);
        assert_eq!(
            cost(Method::Full, MomentDType::Bf16).in_place,
            2 * 2 * 6 * 2
        );
        // Six codes and one scale in each moment.
        assert_eq!(
            cost(Method::Full, MomentDType::EightBit).in_place,
            2 * 2 * (6 + 4)
        );
    }

    #[test]
    fn the_others_by_hand() {
        let [lora, sgd] = [Method::Lora, Method::Sgd].map(|method| cost(method, MomentDType::F32));
        assert_eq!((lora.in_place, lora.read), (2 * 4 * 15, 2 * 4 * 5));
        assert_eq!((sgd.in_place, sgd.read), (2 * 4 * 5, 2 * 4 * 5));
        assert_eq!((lora.operations, sgd.operations), (0, 2 * 8 * 5));
    }
}
