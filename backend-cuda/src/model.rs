//! The host's twins of `kernels/model.cuh`: same fields, same order. A test compares their sizes
//! with what the kernels say.

use bytemuck::{Pod, Zeroable};

use crate::device::Launch;

macro_rules! twins {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
        #[repr(C)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)+
        }
    )+};
}

twins! {
    /// A matrix in memory.
    View { at: u64, row: i64, col: i64, dtype: i32, run: i32 }

    /// Hyper-parameters of an adapter or parameter.
    Hyper {
        lr: f64, lr_ratio: f64, beta1: f64, beta2: f64, eps: f64, weight_decay: f64,
        momentum: f64, damping: f64, update_clip: f64,
        method: i32, x: i32, damping_kind: i32, maximize: i32, stochastic: i32, in_f64: i32,
    }

    /// Memory of one side of an adapter.
    Side {
        f: View, g: View,
        first: u64, second: u64, largest: u64, master: u64,
        old: u64, fresh: u64, weights: u64,
        panel: u64, parts: u64, gradient: u64,
        products: u64, squares: u64, backup: u64,
        len: i32, ld: i32, chunk: i32, chunk_count: i32, part_count: i32, pad: i32,
    }

    /// Written by the device only.
    Step {
        gamma: f64, lr: [f64; 2], decay: [f64; 2], base_decay: f64, c1: f64, c2: f64, k: f64,
        eps: f64, clip: f64, t: u64,
    }

    /// What a step did to an adapter or a parameter.
    Report {
        factor_square: [f64; 2], gradient_square: [f64; 2], update_norm: [f64; 2],
        equivalent_norm: f64, clip: f64, step: u64, refused: u32, pad: u32,
    }

    /// An adapter.
    Pair {
        side: [Side; 2], hyper: Hyper, step: Step, s: f64, base: View,
        wide: [u64; 3], scales: [u64; 3], small: u64, coefficients: u64, report: u64, counter: u64,
        r: i32, width: i32, wide_ld: i32, wide_dtype: i32, wide_rows: i32, name: u32,
    }

    /// A parameter without a pair.
    Param {
        value: View, grad: View, hyper: Hyper,
        first: u64, second: u64, largest: u64, master: u64,
        squares: u64, backup: u64, report: u64, counter: u64,
        rows: i64, cols: i64, ld: i64, chunk_count: i32, name: u32,
    }

    /// What concerns the whole step.
    Control { lr_factor: f64, grad_scale: f64, max_grad_norm: f64, insist: u32, pad: u32 }

    /// What the device says of the whole step.
    Status { grad_norm: f64, grad_clip: f64, refused: u32, lost: u32, lost_steps: u32, pad: u32 }

    /// Everything.
    Model { adapters: u64, params: u64, control: u64, status: u64, pair_count: i32, param_count: i32 }

    /// What one block does.
    Task { item: u32, side: u32, chunk: u32, other: u32 }
}

/// Sizes of the structures, in the order in which the kernel `sizes` has them: for the test that
/// compares both.
#[must_use]
pub fn sizes() -> [usize; 12] {
    [
        size_of::<Launch>(),
        size_of::<Task>(),
        size_of::<Model>(),
        size_of::<Status>(),
        size_of::<Control>(),
        size_of::<Param>(),
        size_of::<Pair>(),
        size_of::<Side>(),
        size_of::<Report>(),
        size_of::<Step>(),
        size_of::<Hyper>(),
        size_of::<View>(),
    ]
}

/// Bits of [`Report::refused`].
pub(crate) const NOT_FINITE: u32 = 1;
pub(crate) const DOUBTFUL: u32 = 2;

/// How many r x r matrices an adapter has in f64, without and with those of the factored mode.
pub(crate) const SMALL_COUNT: [usize; 2] = [27, 37];

/// How many coefficient matrices a side has.
pub(crate) const COEFFICIENTS: usize = 5;

/// Entries of a parameter, or of W0, in a chunk.
pub(crate) const ENTRIES: usize = 4096;
