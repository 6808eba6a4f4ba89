//! Work cut into parts, one after another or on several threads.
//!
//! What the parts are depends on shapes only, and what they compute is added up in their order: so
//! results do not depend on the number of threads (law 13).

use crate::panel::Panel;
use crate::simd::Strip;

/// Tiles of a thin matrix that make a part.
pub(crate) const CHUNK: usize = 32;

/// Something that can be cut in two.
pub(crate) trait Parts: Sized + Send {
    /// Number of parts.
    fn count(&self) -> usize;
    /// The parts before and from `at`.
    fn split(self, at: usize) -> (Self, Self);
}

/// Runs `each` on every part; `first` is the number of the first.
pub(crate) fn spread<P: Parts>(
    parallel: bool,
    first: usize,
    parts: P,
    each: &(impl Fn(usize, P) + Sync),
) {
    match parts.count() {
        0 => {}
        1 => each(first, parts),
        count => {
            let half = count / 2;
            let (left, right) = parts.split(half);
            if parallel {
                rayon::join(
                    || spread(true, first, left, each),
                    || spread(true, first + half, right, each),
                );
            } else {
                spread(false, first, left, each);
                spread(false, first + half, right, each);
            }
        }
    }
}

/// Each element is a part.
impl<T: Send> Parts for &mut [T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn split(self, at: usize) -> (Self, Self) {
        self.split_at_mut(at)
    }
}

impl<P: Parts, Q: Parts> Parts for (P, Q) {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn split(self, at: usize) -> (Self, Self) {
        let ((a, b), (c, d)) = (self.0.split(at), self.1.split(at));
        ((a, c), (b, d))
    }
}

/// A slice with `stride` items for each part; empty where there is none.
pub(crate) struct Slices<'p, X> {
    pub(crate) items: &'p mut [X],
    stride: usize,
}

/// A panel's strips, cut into chunks of tiles.
pub(crate) type Strips<'p, T> = Slices<'p, Strip<T>>;

impl<'p, X> Slices<'p, X> {
    pub(crate) fn new(items: &'p mut [X], stride: usize) -> Self {
        Slices { items, stride }
    }

    pub(crate) fn none() -> Self {
        Slices {
            items: &mut [],
            stride: 0,
        }
    }

    /// False where there is none.
    pub(crate) fn exist(&self) -> bool {
        self.stride > 0
    }
}

impl<'p, T> Strips<'p, T> {
    /// Of a panel, if it is there.
    pub(crate) fn of(panel: Option<&'p mut Panel<T>>) -> Self {
        panel.map_or(Slices::none(), |panel| {
            Slices::new(&mut panel.strips, CHUNK * panel.rows)
        })
    }

    /// The strips of a tile of this part, counted from the part's first tile.
    pub(crate) fn tile(&mut self, tile: usize) -> &mut [Strip<T>] {
        let rows = self.stride / CHUNK;
        &mut self.items[tile * rows..][..rows]
    }
}

impl<X: Send> Parts for Slices<'_, X> {
    fn count(&self) -> usize {
        self.items.len().div_ceil(self.stride.max(1))
    }

    fn split(self, at: usize) -> (Self, Self) {
        let stride = self.stride;
        let (left, right) = self.items.split_at_mut((at * stride).min(self.items.len()));
        (Slices::new(left, stride), Slices::new(right, stride))
    }
}

/// Several panels side by side.
impl<P: Parts, const N: usize> Parts for [P; N] {
    fn count(&self) -> usize {
        self.iter().map(Parts::count).max().unwrap_or(0)
    }

    fn split(self, at: usize) -> (Self, Self) {
        let mut right = [const { None }; N];
        let mut k = 0;
        let left = self.map(|part| {
            let (left, rest) = part.split(at);
            right[k] = Some(rest);
            k += 1;
            left
        });
        // Every entry was filled by the line above.
        (left, right.map(|part| part.expect("as many as there were")))
    }
}
