//! Work cut into parts, one after another or on several threads.
//!
//! What the parts are depends on shapes only, and what they compute is added up in their order: so
//! results do not depend on the number of threads (law 13).

use crate::panel::Panel;
use crate::simd::Strip;
use crate::simd_level::SimdLevel;
use crate::workspace::Workspaces;

/// Tiles of a thin matrix that make a part.
pub(crate) const CHUNK: usize = 32;

/// How the passes of one adapter or parameter run.
pub(crate) struct ParallelCtx<'c, T> {
    pub(crate) level: SimdLevel,
    /// Whether parts go to several threads.
    pub(crate) parallel: bool,
    pub(crate) workspaces: &'c Workspaces<T>,
}

/// Something that can be cut in two.
pub(crate) trait Splittable: Sized + Send {
    /// Number of parts.
    fn count(&self) -> usize;
    /// The parts before and from `at`.
    fn split(self, at: usize) -> (Self, Self);
}

/// Runs `each` on every part; `first` is the number of the first.
pub(crate) fn parallel_for<P: Splittable>(
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
                    || parallel_for(true, first, left, each),
                    || parallel_for(true, first + half, right, each),
                );
            } else {
                parallel_for(false, first, left, each);
                parallel_for(false, first + half, right, each);
            }
        }
    }
}

/// Cuts a struct field by field; the first field says how many parts there are.
macro_rules! splittable {
    ([$($generics:tt)*] $type:ty { $first:ident $(, $field:ident)* }) => {
        impl<$($generics)*> $crate::parallel::Splittable for $type {
            fn count(&self) -> usize {
                self.$first.count()
            }

            fn split(self, at: usize) -> (Self, Self) {
                let $first = self.$first.split(at);
                $(let $field = self.$field.split(at);)*
                (
                    Self { $first: $first.0, $($field: $field.0),* },
                    Self { $first: $first.1, $($field: $field.1),* },
                )
            }
        }
    };
}
pub(crate) use splittable;

/// Each element is a part.
impl<T: Send> Splittable for &mut [T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn split(self, at: usize) -> (Self, Self) {
        self.split_at_mut(at)
    }
}

/// What is absent is absent from every part.
impl<P: Splittable> Splittable for Option<P> {
    fn count(&self) -> usize {
        self.as_ref().map_or(0, P::count)
    }

    fn split(self, at: usize) -> (Self, Self) {
        self.map(|parts| parts.split(at)).unzip()
    }
}

/// A slice with `stride` items for each part.
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
}

impl<'p, T> Strips<'p, T> {
    /// The strips of a panel.
    pub(crate) fn of(panel: &'p mut Panel<T>) -> Self {
        Slices::new(&mut panel.strips, CHUNK * panel.rows)
    }

    /// The strips of a tile of this part, counted from the part's first tile.
    #[inline(always)]
    pub(crate) fn tile(&mut self, tile: usize) -> &mut [Strip<T>] {
        let rows = self.stride / CHUNK;
        &mut self.items[tile * rows..][..rows]
    }
}

impl<X: Send> Splittable for Slices<'_, X> {
    fn count(&self) -> usize {
        self.items.len().div_ceil(self.stride)
    }

    fn split(self, at: usize) -> (Self, Self) {
        let stride = self.stride;
        let (left, right) = self.items.split_at_mut((at * stride).min(self.items.len()));
        (Slices::new(left, stride), Slices::new(right, stride))
    }
}
