//! Scratch memory: kept from step to step, so that a step allocates nothing after the first.

use std::sync::{Mutex, MutexGuard};

use crate::kernels::{Coefficients, Grams, Partial, gathered};
use crate::panel::{HEIGHT, Panel};
use crate::simd::{Real, Strip};
use crate::small::{Square, Work};

/// `r` rounded up to whole blocks of four: what kernels read of a tile.
pub(crate) fn padded(r: usize) -> usize {
    r.next_multiple_of(4)
}

/// The tiles that a thread works on.
#[derive(Default)]
pub(crate) struct Tiles<T> {
    /// F of a tile.
    pub(crate) f: Vec<Strip<T>>,
    /// G of a tile.
    pub(crate) g: Vec<Strip<T>>,
    /// A product.
    pub(crate) d: Vec<Strip<T>>,
    /// Another product, or moments in a rehearsal.
    pub(crate) h: Vec<Strip<T>>,
    /// Operands of a Gram product.
    pub(crate) x: Vec<Strip<f64>>,
    pub(crate) y: Vec<Strip<f64>>,
    pub(crate) grams: Grams,
    /// The full mode's N A', for the rows of one tile.
    pub(crate) partial: Vec<[Partial<T>; HEIGHT]>,
}

impl<T: Real> Tiles<T> {
    fn reserve(&mut self, r: usize) {
        let zero = Strip::all(T::default());
        for (strips, count) in [
            (&mut self.f, padded(r)),
            (&mut self.g, padded(r)),
            (&mut self.d, padded(2 * r)),
            (&mut self.h, 3 * padded(r)),
        ] {
            strips.resize(count.max(strips.len()), zero);
        }
        for (strips, count) in [
            (&mut self.x, gathered(r) * padded(2 * r)),
            (&mut self.y, gathered(r) * padded(3 * r)),
        ] {
            strips.resize(count.max(strips.len()), Strip::all(0.0));
        }
        self.partial.resize(
            r.max(self.partial.len()),
            [Partial([T::default(); 16]); HEIGHT],
        );
    }

    fn poison(&mut self) {
        let nan = T::of(f64::NAN);
        for strips in [&mut self.f, &mut self.g, &mut self.d, &mut self.h] {
            strips.fill(Strip::all(nan));
        }
        self.x.fill(Strip::all(f64::NAN));
        self.y.fill(Strip::all(f64::NAN));
        self.partial.fill([Partial([nan; 16]); HEIGHT]);
    }
}

/// What a part of a pass adds up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum {
    /// Entries of a product of thin matrices, row by row.
    pub(crate) products: Vec<f64>,
    /// Anything else.
    pub(crate) scalar: f64,
}

/// r x r products of one adapter.
#[derive(Default)]
pub(crate) struct SmallProducts {
    /// Results that are used at once.
    pub(crate) one: Square,
    pub(crate) two: Square,
    /// Factored mode: F w F' and F w Y', by side.
    pub(crate) weighted: [[Square; 2]; 2],
    /// Factored mode: F1 F1', F1 F' and F1 Y', by side.
    pub(crate) advanced: [[Square; 3]; 2],
}

impl SmallProducts {
    fn all(&mut self) -> impl Iterator<Item = &mut Square> {
        let weighted = self.weighted.iter_mut().flatten();
        let advanced = self.advanced.iter_mut().flatten();
        [&mut self.one, &mut self.two]
            .into_iter()
            .chain(weighted)
            .chain(advanced)
    }
}

/// Memory for one adapter at a time, held by the thread that leads its step.
pub(crate) struct Lead<T> {
    pub(crate) work: Work,
    pub(crate) sums: Vec<Sum>,
    pub(crate) coefficients: [Coefficients<T>; 5],
    pub(crate) small: SmallProducts,
    /// Factored mode: F as it was, F as it will be, and the weights of N, by side.
    pub(crate) old: [Panel<T>; 2],
    pub(crate) new: [Panel<T>; 2],
    pub(crate) weights: [Panel<T>; 2],
    /// Full mode: [sU; A] by tiles of columns, [B sV] by rows of tiles, B'N by groups of rows, and
    /// B'N and (N A')' in the end.
    pub(crate) right: Panel<T>,
    pub(crate) left: Vec<[T; HEIGHT]>,
    pub(crate) partial_gan: Vec<Panel<T>>,
    pub(crate) gan: Panel<T>,
    pub(crate) gbn_rows: Vec<[T; HEIGHT]>,
    pub(crate) gbn: Panel<T>,
}

impl<T: Real> Lead<T> {
    fn new() -> Self {
        Lead {
            work: Work::new(),
            sums: Vec::new(),
            coefficients: Default::default(),
            small: SmallProducts::default(),
            old: Default::default(),
            new: Default::default(),
            weights: Default::default(),
            right: Panel::default(),
            left: Vec::new(),
            partial_gan: Vec::new(),
            gan: Panel::default(),
            gbn_rows: Vec::new(),
            gbn: Panel::default(),
        }
    }

    fn poison(&mut self) {
        self.work.poison();
        for sum in &mut self.sums {
            sum.products.fill(f64::NAN);
            sum.scalar = f64::NAN;
        }
        self.small.all().for_each(|matrix| matrix.fill(f64::NAN));
        let panels = self
            .old
            .iter_mut()
            .chain(&mut self.new)
            .chain(&mut self.weights);
        let panels = panels.chain(&mut self.partial_gan);
        let panels = panels.chain([&mut self.right, &mut self.gan, &mut self.gbn]);
        panels.for_each(Panel::poison);
        self.left.fill([T::of(f64::NAN); HEIGHT]);
        self.gbn_rows.fill([T::of(f64::NAN); HEIGHT]);
    }
}

/// Scratch memory of all threads, for one number type.
pub(crate) struct Pool<T> {
    tiles: Vec<Mutex<Tiles<T>>>,
    leads: Vec<Mutex<Lead<T>>>,
}

impl<T: Real> Pool<T> {
    pub(crate) fn new(threads: usize) -> Self {
        Pool {
            tiles: (0..threads).map(|_| Mutex::new(Tiles::default())).collect(),
            leads: (0..threads).map(|_| Mutex::new(Lead::new())).collect(),
        }
    }

    /// The tiles of this thread, with room for a rank.
    pub(crate) fn tiles(&self, r: usize) -> MutexGuard<'_, Tiles<T>> {
        let mut tiles = own(&self.tiles);
        tiles.reserve(r);
        tiles
    }

    /// The memory with which this thread leads an adapter's step.
    pub(crate) fn lead(&self, r: usize) -> MutexGuard<'_, Lead<T>> {
        let mut lead = own(&self.leads);
        lead.work.reserve(r);
        lead.small.all().for_each(|matrix| matrix.reserve(r));
        lead
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        // A poisoned lock only means that another thread failed; the memory is scratch.
        for tiles in &mut self.tiles {
            tiles
                .get_mut()
                .unwrap_or_else(|failed| failed.into_inner())
                .poison();
        }
        for lead in &mut self.leads {
            lead.get_mut()
                .unwrap_or_else(|failed| failed.into_inner())
                .poison();
        }
    }
}

/// This thread's entry. It is free: a thread that waits for others steals only parts of passes,
/// which lock tiles and return, and it holds no tiles itself while it waits.
fn own<X>(all: &[Mutex<X>]) -> MutexGuard<'_, X> {
    let index = rayon::current_thread_index().unwrap_or(0) % all.len();
    // As in `Pool::poison`.
    all[index]
        .lock()
        .unwrap_or_else(|failed| failed.into_inner())
}

/// The sums of `parts` parts, each with `count` products, to be filled.
pub(crate) fn sums(all: &mut Vec<Sum>, parts: usize, count: usize) -> &mut [Sum] {
    if all.len() < parts {
        all.resize(parts, Sum::default());
    }
    for sum in &mut all[..parts] {
        sum.products.clear();
        sum.products.resize(count, 0.0);
        sum.scalar = 0.0;
    }
    &mut all[..parts]
}

/// Adds all parts up, in their order, into the first.
pub(crate) fn total(parts: &mut [Sum]) -> &Sum {
    let (first, rest) = parts
        .split_first_mut()
        // Shapes are not empty: the front refuses those.
        .expect("a pass has at least one part");
    for part in rest {
        for (sum, x) in first.products.iter_mut().zip(&part.products) {
            *sum += x;
        }
        first.scalar += part.scalar;
    }
    first
}
