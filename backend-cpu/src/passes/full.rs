//! The passes of the full mode.
//!
//! ```text
//! form:   right = [sU; A] by tiles of columns, left = [B sV] by rows of tiles
//! wide:   E, M, V2, N tile by tile; B'N and (N A')' on the way
//! ```
//!
//! The wide pass goes through the moments once, in the order in which they lie. Groups of rows are
//! its parts: at most 16, a number that depends on m alone, each with its own B'N.

use super::moments::Moments;
use super::survey::Crew;
use super::thin::Source;
use crate::kernels::{AdamNumbers, Coefficients, Partial, Thin, product, wide_tile};
use crate::panel::{HEIGHT, Panel};
use crate::path::Job;
use crate::scratch::{Tiles, padded};
use crate::simd::{Isa, Real, Strip, WIDTH};
use crate::spread::{CHUNK, Parts, Slices, Strips, spread};

/// Forms H = Hg G + Hf F and stacks it on F, or F on it.
pub(crate) fn form<T: Real>(
    crew: &Crew<'_, T>,
    f: Source<'_, T>,
    g: Source<'_, T>,
    split: (&Coefficients<T>, Option<&Coefficients<T>>),
    h_first: bool,
    out: &mut Panel<T>,
) {
    let [r, len] = f.shape();
    out.reshape(2 * r, len);
    let tiles = len.div_ceil(WIDTH);
    spread(crew.parallel, 0, Strips::of(Some(out)), &|chunk, out| {
        let range = chunk * CHUNK..tiles.min((chunk + 1) * CHUNK);
        let mut own = crew.pool.tiles(r);
        crew.path.run(Form {
            f,
            g,
            split,
            h_first,
            out,
            range,
            tiles: &mut own,
        });
    });
}

struct Form<'j, T> {
    f: Source<'j, T>,
    g: Source<'j, T>,
    split: (&'j Coefficients<T>, Option<&'j Coefficients<T>>),
    h_first: bool,
    out: Strips<'j, T>,
    range: std::ops::Range<usize>,
    tiles: &'j mut Tiles<T>,
}

impl<T: Real> Job for Form<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Form {
            f,
            g,
            split,
            h_first,
            mut out,
            range,
            tiles,
        } = self;
        let r = f.shape()[0];
        let Tiles {
            f: values,
            g: gradients,
            d,
            ..
        } = tiles;
        for (local, tile) in range.enumerate() {
            f.load(simd, tile, values);
            g.load(simd, tile, gradients);
            let own = (split.0, &gradients[..r]);
            match split.1 {
                None => product(simd, &mut d[..padded(r)], false, [own]),
                Some(inside) => {
                    let inside = (inside, &values[..r]);
                    product(simd, &mut d[..padded(r)], false, [own, inside]);
                }
            }
            let (upper, lower) = out.tile(local).split_at_mut(r);
            let (h, f) = if h_first {
                (upper, lower)
            } else {
                (lower, upper)
            };
            h.copy_from_slice(&d[..r]);
            f.copy_from_slice(&values[..r]);
        }
    }
}

/// A panel of `rows` strips as blocks of six columns: what a row of tiles broadcasts.
pub(crate) fn by_rows<T: Real>(panel: &Panel<T>, out: &mut Vec<[T; HEIGHT]>) {
    out.clear();
    for start in (0..panel.len).step_by(HEIGHT) {
        for q in 0..panel.rows {
            let entry = |i: usize| {
                if start + i < panel.len {
                    panel.get(q, start + i)
                } else {
                    T::default()
                }
            };
            out.push(std::array::from_fn(entry));
        }
    }
}

/// The other way round, for a panel of its shape.
pub(crate) fn to_panel<T: Real>(blocks: &[[T; HEIGHT]], out: &mut Panel<T>) {
    out.strips.fill(Strip::all(T::default()));
    let rows = out.rows;
    for (at, block) in blocks.iter().enumerate() {
        let (start, q) = (at / rows * HEIGHT, at % rows);
        for (i, x) in block.iter().enumerate().take(out.len - start) {
            out.set(q, start + i, *x);
        }
    }
}

/// Rows of tiles that make a part of the wide pass over m rows.
pub(crate) fn group(m: usize) -> usize {
    let rows = m.div_ceil(HEIGHT);
    rows.div_ceil(rows.div_ceil(32).clamp(1, 16))
}

/// What the wide pass reads and adds up, besides the moments.
pub(crate) struct WideOperands<'w, T> {
    /// Rows of W.
    pub(crate) m: usize,
    pub(crate) numbers: AdamNumbers<T>,
    /// [B sV], 2r blocks for each row of tiles.
    pub(crate) left: &'w [[T; HEIGHT]],
    /// [sU; A].
    pub(crate) right: &'w Panel<T>,
    /// B'N of each part.
    pub(crate) gan: &'w mut [Panel<T>],
    /// (N A')', r blocks for each row of tiles.
    pub(crate) gbn: &'w mut [[T; HEIGHT]],
}

/// The wide pass.
pub(crate) fn wide<T: Real, M: Moments<T>>(
    crew: &Crew<'_, T>,
    operands: WideOperands<'_, T>,
    [first, second]: [M; 2],
    largest: Option<M>,
) {
    let WideOperands {
        m,
        numbers,
        left,
        right,
        gan,
        gbn,
    } = operands;
    let r = right.rows / 2;
    let rows = group(m);
    let gbn = Slices::new(gbn, rows * r);
    let work = ((gan, gbn), ((first, second), Maybe(largest)));
    spread(crew.parallel, 0, work, &|part,
                                     (
        (gan, gbn),
        ((first, second), largest),
    )| {
        let gan: &mut [Panel<T>] = gan;
        let left = &left[part * rows * 2 * r..];
        let mut own = crew.pool.tiles(r);
        crew.path.run(WideRows {
            numbers: &numbers,
            left,
            right,
            first,
            second,
            largest: largest.0,
            gan: &mut gan[0],
            gbn: gbn.items,
            tiles: &mut own,
        });
    });
}

/// Parts that may not be there.
struct Maybe<P>(Option<P>);

impl<P: Parts> Parts for Maybe<P> {
    fn count(&self) -> usize {
        self.0.as_ref().map_or(0, Parts::count)
    }

    fn split(self, at: usize) -> (Self, Self) {
        match self.0 {
            None => (Maybe(None), Maybe(None)),
            Some(parts) => {
                let (left, right) = parts.split(at);
                (Maybe(Some(left)), Maybe(Some(right)))
            }
        }
    }
}

struct WideRows<'j, T, M> {
    numbers: &'j AdamNumbers<T>,
    left: &'j [[T; HEIGHT]],
    right: &'j Panel<T>,
    first: M,
    second: M,
    largest: Option<M>,
    gan: &'j mut Panel<T>,
    gbn: &'j mut [[T; HEIGHT]],
    tiles: &'j mut Tiles<T>,
}

impl<T: Real, M: Moments<T>> Job for WideRows<'_, T, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let WideRows {
            numbers,
            left,
            right,
            mut first,
            mut second,
            ..
        } = self;
        let mut largest = self.largest;
        let r = right.rows / 2;
        let across = right.len.div_ceil(WIDTH);
        let zero = [Strip::all(T::default()); HEIGHT];
        let (mut buffer1, mut buffer2, mut buffer3) = (zero, zero, zero);
        let partial = &mut self.tiles.partial[..r];
        self.gan.strips.fill(Strip::all(T::default()));
        self.gbn.fill([T::default(); HEIGHT]);
        let columns = block_of_columns(r);
        for start in (0..across).step_by(columns) {
            for (row, gbn) in self.gbn.chunks_mut(r).enumerate() {
                let left = &left[row * 2 * r..][..2 * r];
                partial.fill([Partial([T::default(); 16]); HEIGHT]);
                for column in start..across.min(start + columns) {
                    let tile = row * across + column;
                    let thin = Thin {
                        left,
                        right: right.tile(column),
                        gan: &mut self.gan.strips[column * r..][..r],
                        gbn: partial,
                    };
                    let one = first.open(tile, &mut buffer1);
                    let two = second.open(tile, &mut buffer2);
                    match largest.as_mut() {
                        None => wide_tile(simd, numbers, thin, one, two, None),
                        Some(largest) => {
                            let three = largest.open(tile, &mut buffer3);
                            wide_tile(simd, numbers, thin, one, two, Some(three));
                            largest.close(tile, &buffer3);
                        }
                    }
                    first.close(tile, &buffer1);
                    second.close(tile, &buffer2);
                }
                for (gbn, partial) in gbn.iter_mut().zip(partial.iter_mut()) {
                    for (x, lanes) in gbn.iter_mut().zip(partial) {
                        let sum = T::sum(simd, T::vectors::<S>(&lanes.0)[0]);
                        *x = T::of(x.wide() + sum.wide());
                    }
                }
            }
        }
    }
}

/// Tiles of columns that are done for all rows of a part before the next ones: their share of
/// `right` and of B'N, 768 r bytes a tile in f32, is to stay in a core's cache.
fn block_of_columns(r: usize) -> usize {
    (512 / r).clamp(4, 64)
}

/// Adds the parts' B'N up, in f64 and in their order.
pub(crate) fn gather<T: Real>(parts: &[Panel<T>], out: &mut Panel<T>) {
    for (at, out) in out.strips.iter_mut().enumerate() {
        let mut sums = [0.0f64; WIDTH];
        for part in parts {
            for (sum, x) in sums.iter_mut().zip(part.strips[at].iter()) {
                *sum += x.wide();
            }
        }
        *out = Strip(sums.map(T::of));
    }
}
