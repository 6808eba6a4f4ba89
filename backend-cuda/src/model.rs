//! The host's mirrors of the structures of `kernels/model.cuh`: same fields, same order. A test
//! compares sizes and offsets with those that the kernels report ([`layout`]).

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use crate::device::Launch;

/// Where the control stands behind the model: a place that graphs may write to.
pub(crate) const CONTROL: usize = 64;
const _: () = assert!(size_of::<Model>() <= CONTROL);

macro_rules! host_mirrors {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),+ $(,)? })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
            #[repr(C)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type,)+
            }
        )+

        /// Of every structure its size and then its fields' offsets, with their names, in the order in
        /// which the kernel `layout` has them.
        #[must_use]
        pub fn layout() -> Vec<(&'static str, usize)> {
            let mut all = Vec::new();
            $(
                all.push((stringify!($name), size_of::<$name>()));
                $(all.push((concat!(stringify!($name), ".", stringify!($field)), offset_of!($name, $field)));)+
            )+
            all.push(("Launch", size_of::<Launch>()));
            all.push(("Launch.model", offset_of!(Launch, model)));
            all.push(("Launch.tasks", offset_of!(Launch, tasks)));
            all.push(("Launch.numbers", offset_of!(Launch, numbers)));
            all.push(("Launch.words", offset_of!(Launch, words)));
            all
        }
    };
}

host_mirrors! {
    /// A matrix in memory.
    View { at: u64, row: i64, col: i64, dtype: i32, contiguity: i32 }

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
        old: u64, updated: u64, weights: u64,
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
        equivalent_norm: f64, clip: f64, step: u64, rejected: u32, pad: u32,
    }

    /// An adapter.
    Adapter {
        side: [Side; 2], hyper: Hyper, step: Step, s: f64, base: View,
        wide: [u64; 3], scales: [u64; 3], rank_matrices: u64, coefficients: u64, report: u64, counter: u64,
        r: i32, width: i32, wide_ld: i32, wide_dtype: i32, wide_rows: i32, name: u32,
    }

    /// An unpaired parameter.
    Param {
        value: View, grad: View, hyper: Hyper,
        first: u64, second: u64, largest: u64, master: u64,
        squares: u64, backup: u64, report: u64, counter: u64,
        rows: i64, cols: i64, ld: i64, chunk_count: i32, name: u32,
    }

    /// What concerns the whole step.
    Control { lr_factor: f64, grad_scale: f64, max_grad_norm: f64, allow_overflow: u32, pad: u32 }

    /// What the device says of the whole step.
    Status { grad_norm: f64, grad_clip: f64, rejected: u32, unreported: u32, unreported_steps: u32, pad: u32 }

    /// Everything.
    Model {
        adapters: u64, params: u64, control: u64, status: u64, adapter_count: i32, param_count: i32,
    }

    /// What one block does.
    Task { item: u32, side: u32, chunk: u32, other: u32 }
}

impl Hyper {
    /// Which kernels compute what these belong to.
    pub(crate) fn precision(&self) -> Precision {
        match self.in_f64 {
            0 => Precision::F32,
            _ => Precision::F64,
        }
    }
}

/// The type that an adapter or a parameter is computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    F32,
    F64,
}

impl Precision {
    pub(crate) const ALL: [Precision; 2] = [Precision::F32, Precision::F64];

    /// Bytes of a number.
    pub(crate) fn size(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::F64 => 8,
        }
    }
}
