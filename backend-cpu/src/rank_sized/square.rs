//! An r x r matrix that is reused from adapter to adapter.

use std::ops::{Deref, DerefMut};

use faer::Mat;

/// faer's matrix, with an empty one to start from.
#[derive(Clone, Debug)]
pub(crate) struct Square(Mat<f64>);

impl Square {
    /// Gives it a size; allocates only where it was never as large.
    pub(crate) fn reserve(&mut self, r: usize) {
        if self.0.nrows() != r {
            self.0.resize_with(r, r, |_, _| 0.0);
        }
    }
}

impl Default for Square {
    fn default() -> Self {
        Square(Mat::new())
    }
}

impl Deref for Square {
    type Target = Mat<f64>;

    fn deref(&self) -> &Mat<f64> {
        &self.0
    }
}

impl DerefMut for Square {
    fn deref_mut(&mut self) -> &mut Mat<f64> {
        &mut self.0
    }
}
