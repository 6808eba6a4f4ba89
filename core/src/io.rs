//! The tensors of one step, borrowed from their owner.

use crate::tensor::{MatMut, MatRef};

/// Which adapter, given by [`crate::Optimizer::add_adapter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdapterId(usize);

/// Which unpaired parameter, given by [`crate::Optimizer::add_param`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

macro_rules! id {
    ($id:ident, $what:literal) => {
        impl $id {
            #[doc = concat!("The ", $what, " that was registered after `index` others.")]
            ///
            /// For programs that receive ids as numbers; a step checks that it exists.
            pub fn from_index(index: usize) -> Self {
                $id(index)
            }

            #[doc = concat!("How many ", $what, "s were registered before it.")]
            pub fn index(self) -> usize {
                self.0
            }
        }
    };
}

id!(AdapterId, "adapter");
id!(ParamId, "parameter");

/// The tensors of one adapter in one step.
#[derive(Debug)]
#[non_exhaustive]
pub struct AdapterIo<'a> {
    /// Which adapter.
    pub id: AdapterId,
    /// A, r x n.
    pub a: MatMut<'a>,
    /// B, m x r.
    pub b: MatMut<'a>,
    /// gA = dL/dA, r x n.
    pub grad_a: MatRef<'a>,
    /// gB = dL/dB, m x r.
    pub grad_b: MatRef<'a>,
    /// W0, m x n; needed, and read, only where [`crate::Hyper::decay_base`] is set.
    pub w0: Option<MatMut<'a>>,
}

impl<'a> AdapterIo<'a> {
    /// A (r x n), B (m x r) and their gradients.
    pub fn new(
        id: AdapterId,
        a: MatMut<'a>,
        b: MatMut<'a>,
        grad_a: MatRef<'a>,
        grad_b: MatRef<'a>,
    ) -> Self {
        AdapterIo {
            id,
            a,
            b,
            grad_a,
            grad_b,
            w0: None,
        }
    }

    /// With W0 (m x n), which [`crate::Hyper::decay_base`] shrinks.
    pub fn w0(mut self, w0: impl Into<Option<MatMut<'a>>>) -> Self {
        self.w0 = w0.into();
        self
    }
}

/// The tensors of one unpaired parameter in one step.
#[derive(Debug)]
#[non_exhaustive]
pub struct ParamIo<'a> {
    /// Which parameter.
    pub id: ParamId,
    /// The parameter.
    pub value: MatMut<'a>,
    /// Its gradient.
    pub grad: MatRef<'a>,
}

impl<'a> ParamIo<'a> {
    /// A parameter and its gradient, both of the registered shape.
    pub fn new(id: ParamId, value: MatMut<'a>, grad: MatRef<'a>) -> Self {
        ParamIo { id, value, grad }
    }
}
