//! What the kernels know of a set, and how two sets differ.

use bytemuck::{bytes_of, cast_slice};

use crate::model::{Pair, Param};

/// What the kernels know of the set.
#[derive(Default)]
pub(super) struct Described {
    pub(super) adapters: Vec<Pair>,
    pub(super) params: Vec<Param>,
}

impl Described {
    /// Adapters and parameters as they lie on the device.
    fn parts(&self) -> [&[u8]; 2] {
        [cast_slice(&self.adapters), cast_slice(&self.params)]
    }

    /// The bytes of both, and how many of them are the adapters'.
    pub(super) fn bytes(&self) -> (Vec<u8>, usize) {
        let parts = self.parts();
        (parts.concat(), parts[0].len())
    }

    pub(super) fn is(&self, other: &Described) -> bool {
        self.parts() == other.parts()
    }

    /// Whether nothing differs but where tensors are, as it often does from step to step.
    pub(super) fn has_moved_from(&self, other: &Described) -> bool {
        let put_back = |(new, old): (&Pair, &Pair)| {
            let mut new = *new;
            for (new, old) in new.side.iter_mut().zip(&old.side) {
                (new.f.at, new.g.at) = (old.f.at, old.g.at);
            }
            if new.base.at != 0 && old.base.at != 0 {
                new.base.at = old.base.at;
            }
            bytes_of(&new) == bytes_of(old)
        };
        let put_back_param = |(new, old): (&Param, &Param)| {
            let mut new = *new;
            (new.value.at, new.grad.at) = (old.value.at, old.grad.at);
            bytes_of(&new) == bytes_of(old)
        };
        self.adapters.len() == other.adapters.len()
            && self.params.len() == other.params.len()
            && self.adapters.iter().zip(&other.adapters).all(put_back)
            && self.params.iter().zip(&other.params).all(put_back_param)
    }

    /// Whether everything in scratch memory is where it was, of the same shape. (Types of numbers
    /// show in the kernels.)
    pub(super) fn lies_as(&self, other: &Described) -> bool {
        let shape = |pair: &Pair| (pair.r, pair.side.map(|side| side.len), pair.small);
        (self.adapters.iter().map(shape)).eq(other.adapters.iter().map(shape))
    }
}
