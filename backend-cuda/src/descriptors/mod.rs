//! From slots and borrowed tensors to what the kernels read, and how two sets of it differ.
//!
//! | module | what |
//! |---|---|
//! | `adapter`, `param` | one adapter, one unpaired parameter |
//! | `view`, `hyper` | a borrowed matrix; hyper-parameters |
//! | `tiling` | how thin matrices are cut into tiles and chunks |
//! | `arena` | scratch memory |

mod adapter;
mod arena;
mod hyper;
mod param;
mod tiling;
mod view;

use bytemuck::{bytes_of, cast_slice};
use lora_pro_core::Method;

use crate::model::{Adapter, Param};

pub(crate) use adapter::adapter;
pub(crate) use arena::Arena;
pub(crate) use param::param;
#[cfg(test)]
pub(crate) use tiling::width;

/// Where a slot's step counter and report are on the device.
#[derive(Clone, Copy)]
pub(crate) struct SlotAddresses {
    pub(crate) counter: u64,
    pub(crate) report: u64,
}

/// What the kernels know of the set of a step.
#[derive(Default)]
pub(crate) struct Descriptors {
    pub(crate) adapters: Vec<Adapter>,
    pub(crate) params: Vec<Param>,
    /// Of the adapters, for the plan.
    pub(crate) methods: Vec<Method>,
}

/// To the last bit: NaN equals NaN.
impl PartialEq for Descriptors {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Descriptors {
    /// Adapters and parameters as they lie on the device.
    fn parts(&self) -> [&[u8]; 2] {
        [cast_slice(&self.adapters), cast_slice(&self.params)]
    }

    /// The bytes of both, and how many of them are the adapters'.
    pub(crate) fn bytes(&self) -> (Vec<u8>, usize) {
        let parts = self.parts();
        (parts.concat(), parts[0].len())
    }

    /// Whether only the addresses of borrowed tensors differ, as they often do from step to step: the
    /// launches are the same then.
    pub(crate) fn differs_only_in_addresses(&self, other: &Descriptors) -> bool {
        let adapters = self.adapters.iter().zip(&other.adapters);
        let params = self.params.iter().zip(&other.params);
        self.adapters.len() == other.adapters.len()
            && self.params.len() == other.params.len()
            && adapters
                .map(|(new, old)| (moved_to(new, old), old))
                .all(|(new, old)| bytes_of(&new) == bytes_of(old))
            && params
                .map(|(new, old)| (param_moved_to(new, old), old))
                .all(|(new, old)| bytes_of(&new) == bytes_of(old))
    }

    /// Whether everything in scratch memory has the place and the shape that it had. (Types of numbers
    /// show in the names of the kernels.)
    pub(crate) fn same_layout(&self, other: &Descriptors) -> bool {
        let shape = |of: &Adapter| (of.r, of.side.map(|side| side.len), of.rank_matrices);
        (self.adapters.iter().map(shape)).eq(other.adapters.iter().map(shape))
    }
}

/// The descriptor with the borrowed tensors where `old` has them.
fn moved_to(new: &Adapter, old: &Adapter) -> Adapter {
    let mut new = *new;
    for (new, old) in new.side.iter_mut().zip(&old.side) {
        (new.f.at, new.g.at) = (old.f.at, old.g.at);
    }
    // Whether W0 is decayed shows in the plan.
    if new.base.at != 0 && old.base.at != 0 {
        new.base.at = old.base.at;
    }
    new
}

fn param_moved_to(new: &Param, old: &Param) -> Param {
    let mut new = *new;
    (new.value.at, new.grad.at) = (old.value.at, old.grad.at);
    new
}
