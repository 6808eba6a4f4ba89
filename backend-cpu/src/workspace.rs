//! Scratch memory: kept from step to step, so that a step allocates nothing after the first.

use std::sync::{Mutex, MutexGuard};

use crate::kernels::{Coefficients, Grams, LaneSums, gathered};
use crate::panel::{HEIGHT, Panel};
use crate::rank_sized::{
    ColumnRoots, GramInverses, GramProducts, InnerTerms, Projection, RankScratch, Square,
};
use crate::simd::{Real, Strip};

/// `r` rounded up to whole blocks of four: what kernels read of a tile.
pub(crate) fn padded(r: usize) -> usize {
    r.next_multiple_of(4)
}

/// The strips that a thread works on.
#[derive(Default)]
pub(crate) struct ThreadWorkspace<T> {
    /// F of a tile.
    pub(crate) f: Vec<Strip<T>>,
    /// G of a tile.
    pub(crate) g: Vec<Strip<T>>,
    /// D or H: what G and F are combined to.
    pub(crate) d: Vec<Strip<T>>,
    /// Products of H and F in the factored mode; copies of moments in a dry run.
    pub(crate) spare: Vec<Strip<T>>,
    /// Operands of a Gram product, in f64.
    pub(crate) left: Vec<Strip<f64>>,
    pub(crate) right: Vec<Strip<f64>>,
    pub(crate) grams: Grams,
    /// The full mode's N A', for the rows of one tile.
    pub(crate) n_at: Vec<[LaneSums<T>; HEIGHT]>,
}

impl<T: Real> ThreadWorkspace<T> {
    fn reserve(&mut self, r: usize) {
        let zero = Strip::all(T::default());
        for (strips, count) in [
            (&mut self.f, padded(r)),
            (&mut self.g, padded(r)),
            (&mut self.d, padded(2 * r)),
            (&mut self.spare, 3 * padded(r)),
        ] {
            strips.resize(count.max(strips.len()), zero);
        }
        for (strips, count) in [
            (&mut self.left, gathered(r) * padded(2 * r)),
            (&mut self.right, gathered(r) * padded(3 * r)),
        ] {
            strips.resize(count.max(strips.len()), Strip::all(0.0));
        }
        let zero = LaneSums([T::default(); 16]);
        self.n_at.resize(r.max(self.n_at.len()), [zero; HEIGHT]);
    }

    fn poison(&mut self) {
        let nan = T::of(f64::NAN);
        for strips in [&mut self.f, &mut self.g, &mut self.d, &mut self.spare] {
            strips.fill(Strip::all(nan));
        }
        self.left.fill(Strip::all(f64::NAN));
        self.right.fill(Strip::all(f64::NAN));
        self.n_at.fill([LaneSums([nan; 16]); HEIGHT]);
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

/// `D = P G + T F`: dA = P0 gA + X A, dB' = P1 gB' - (Q + X)' B'.
#[derive(Debug, Default)]
pub(crate) struct DirectionCoefficients<T> {
    pub(crate) p: Coefficients<T>,
    pub(crate) t: Coefficients<T>,
}

/// `H = Hg G + Hf F`: sU = Hg gA, sV' = Hg gB' - s Q' B'.
#[derive(Debug, Default)]
pub(crate) struct EquivalentCoefficients<T> {
    pub(crate) g: Coefficients<T>,
    /// Unused on side 0, where it would be 0.
    pub(crate) f: Coefficients<T>,
}

/// Factored: `|column of E|^2 = |Rs H + Rm R'F|^2 + |Rk R'F|^2`, with the other side's [`ColumnRoots`].
#[derive(Debug, Default)]
pub(crate) struct SquareCoefficients<T> {
    /// Rs Hg.
    pub(crate) g: Coefficients<T>,
    /// Rs Hf + Rm R'.
    pub(crate) f: Coefficients<T>,
    /// Rk R'.
    pub(crate) k: Coefficients<T>,
    /// How many rows of Rk have squares that are added. Those of the others are subtracted.
    pub(crate) positive: usize,
}

/// Factored: `D = (Ty Y + Tf F) w + Tx F`.
#[derive(Debug, Default)]
pub(crate) struct FactorUpdateCoefficients<T> {
    pub(crate) y: Coefficients<T>,
    pub(crate) f: Coefficients<T>,
    /// X, or -(Q + X)'.
    pub(crate) x: Coefficients<T>,
}

/// Factored: `Y <- Ty Y + Tf F + T1 F1`.
#[derive(Debug, Default)]
pub(crate) struct TransportCoefficients<T> {
    pub(crate) y: Coefficients<T>,
    pub(crate) f: Coefficients<T>,
    /// Unused on side 0, where it would be 0.
    pub(crate) f1: Coefficients<T>,
}

/// The small matrices of each pass, in the order in which it reads them.
#[derive(Debug, Default)]
pub(crate) struct PassCoefficients<T> {
    pub(crate) direction: [DirectionCoefficients<T>; 2],
    pub(crate) equivalent: [EquivalentCoefficients<T>; 2],
    pub(crate) square: SquareCoefficients<T>,
    pub(crate) factor_update: FactorUpdateCoefficients<T>,
    pub(crate) transport: TransportCoefficients<T>,
}

/// Factored: products of one side after the moment pass.
#[derive(Debug, Default)]
pub(crate) struct WeightedProducts {
    /// F w F'.
    pub(crate) f: Square,
    /// F w Y'.
    pub(crate) y: Square,
}

/// Factored: products of one side after the factor update.
#[derive(Debug, Default)]
pub(crate) struct NewProducts {
    /// F1 F1', the new Gram matrix.
    pub(crate) f1: Square,
    /// F1 F'.
    pub(crate) f: Square,
    /// F1 Y'.
    pub(crate) y: Square,
}

/// The factored mode's memory between its passes, by side.
#[derive(Debug, Default)]
pub(crate) struct FactoredWorkspace<T> {
    /// F before the step and after it.
    pub(crate) old: [Panel<T>; 2],
    pub(crate) new: [Panel<T>; 2],
    /// The weights w of N's columns.
    pub(crate) weights: [Panel<T>; 2],
    pub(crate) roots: ColumnRoots,
    pub(crate) weighted: [WeightedProducts; 2],
    pub(crate) updated: [NewProducts; 2],
    /// Inverses of the new Gram matrices.
    pub(crate) new_inverses: GramInverses,
    /// SB1^+ B1'M A1' SA1^+.
    pub(crate) inner: Square,
}

impl<T: Real> FactoredWorkspace<T> {
    fn squares(&mut self) -> impl Iterator<Item = &mut Square> {
        let weighted = self.weighted.iter_mut().flat_map(|x| [&mut x.f, &mut x.y]);
        let updated = self.updated.iter_mut();
        let updated = updated.flat_map(|x| [&mut x.f1, &mut x.f, &mut x.y]);
        weighted.chain(updated).chain([&mut self.inner])
    }

    fn poison(&mut self) {
        self.squares().for_each(|matrix| matrix.fill(f64::NAN));
        self.new_inverses.poison();
        self.roots.poison();
        let panels = self.old.iter_mut().chain(&mut self.new);
        panels.chain(&mut self.weights).for_each(Panel::poison);
    }
}

/// The full mode's memory between its passes.
#[derive(Debug, Default)]
pub(crate) struct FullWorkspace<T> {
    /// [sU; A] by tiles of columns.
    pub(crate) right: Panel<T>,
    /// [B sV]' by tiles of columns, and by rows of tiles.
    pub(crate) left_panel: Panel<T>,
    pub(crate) left: Vec<[T; HEIGHT]>,
    /// B'N by groups of rows, and all of it.
    pub(crate) partial_bt_n: Vec<Panel<T>>,
    pub(crate) bt_n: Panel<T>,
    /// (N A')' by rows of tiles, and by tiles of columns.
    pub(crate) n_at_rows: Vec<[T; HEIGHT]>,
    pub(crate) n_at: Panel<T>,
    /// Products of A, B'N and of B', (N A')'.
    pub(crate) n_products: [GramProducts; 2],
}

impl<T: Real> FullWorkspace<T> {
    fn poison(&mut self) {
        let panels = self.partial_bt_n.iter_mut();
        let others = [
            &mut self.right,
            &mut self.left_panel,
            &mut self.bt_n,
            &mut self.n_at,
        ];
        panels.chain(others).for_each(Panel::poison);
        self.left.fill([T::of(f64::NAN); HEIGHT]);
        self.n_at_rows.fill([T::of(f64::NAN); HEIGHT]);
        self.n_products.iter_mut().for_each(GramProducts::poison);
    }
}

/// Memory for one adapter at a time, held by the thread that leads its step.
#[derive(Default)]
pub(crate) struct AdapterWorkspace<T> {
    pub(crate) scratch: RankScratch,
    pub(crate) sums: Vec<Sum>,
    pub(crate) coefficients: PassCoefficients<T>,
    /// A small matrix that is used at once.
    pub(crate) square: Square,
    /// Of the gradients, or of N in their place; used at once.
    pub(crate) projection: Projection,
    /// Q and X of N in the place of g.
    pub(crate) n_terms: InnerTerms,
    pub(crate) factored: FactoredWorkspace<T>,
    pub(crate) full: FullWorkspace<T>,
}

impl<T: Real> AdapterWorkspace<T> {
    fn reserve(&mut self, r: usize) {
        self.scratch.reserve(r);
        self.square.reserve(r);
        self.factored.squares().for_each(|matrix| matrix.reserve(r));
    }

    fn poison(&mut self) {
        self.scratch.poison();
        for sum in &mut self.sums {
            sum.products.fill(f64::NAN);
            sum.scalar = f64::NAN;
        }
        self.square.fill(f64::NAN);
        self.projection.poison();
        self.n_terms.poison();
        self.factored.poison();
        self.full.poison();
    }
}

/// Scratch memory of all threads, for one number type.
pub(crate) struct Workspaces<T> {
    threads: Vec<Mutex<ThreadWorkspace<T>>>,
    adapters: Vec<Mutex<AdapterWorkspace<T>>>,
}

impl<T: Real> Workspaces<T> {
    pub(crate) fn new(threads: usize) -> Self {
        Workspaces {
            threads: (0..threads).map(|_| Mutex::default()).collect(),
            adapters: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// The strips of this thread, with room for a rank.
    pub(crate) fn thread(&self, r: usize) -> MutexGuard<'_, ThreadWorkspace<T>> {
        let mut workspace = own(&self.threads);
        workspace.reserve(r);
        workspace
    }

    /// The memory with which this thread leads an adapter's step.
    pub(crate) fn adapter(&self, r: usize) -> MutexGuard<'_, AdapterWorkspace<T>> {
        let mut workspace = own(&self.adapters);
        workspace.reserve(r);
        workspace
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        // A poisoned lock only means that another thread failed; the memory is scratch.
        for workspace in &mut self.threads {
            let inner = workspace.get_mut();
            inner.unwrap_or_else(|failed| failed.into_inner()).poison();
        }
        for workspace in &mut self.adapters {
            let inner = workspace.get_mut();
            inner.unwrap_or_else(|failed| failed.into_inner()).poison();
        }
    }
}

/// This thread's entry. It is free: a thread that waits for others steals only parts of passes,
/// which lock a thread's strips and return, and it holds no strips itself while it waits.
fn own<X>(all: &[Mutex<X>]) -> MutexGuard<'_, X> {
    let index = rayon::current_thread_index().unwrap_or(0) % all.len();
    // As in `Workspaces::poison`.
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
        // Shapes are not empty: the front rejects those.
        .expect("a pass has at least one part");
    for part in rest {
        for (sum, x) in first.products.iter_mut().zip(&part.products) {
            *sum += x;
        }
        first.scalar += part.scalar;
    }
    first
}
