//! Parameters without a pair: ordinary AdamW, in tiles of 6 x 64.

use lora_pro_core::backend::{Moment, ParamSlot, StateKind};
use lora_pro_core::{DType, ParamIo};

use crate::decay;
use crate::kernels::{AdamNumbers, adam};
use crate::memory::{Memory, Stateful, tensors};
use crate::pair::Setting;
use crate::panel::{Block, HEIGHT};
use crate::passes::{Crew, descend, merge, narrow, squares};
use crate::path::Job;
use crate::rounding::{Round, Seed};
use crate::scratch::{Lead, Sum, Tiles, sums, total};
use crate::simd::{Isa, Real};
use crate::spread::{Slices, spread};
use crate::view::View;

/// The borrowed tensors of one parameter.
#[derive(Clone, Copy)]
pub(crate) struct ParamViews {
    pub(crate) value: View,
    pub(crate) grad: View,
}

impl ParamViews {
    pub(crate) fn of(io: &mut ParamIo<'_>) -> Self {
        ParamViews {
            value: View::of_mut(&mut io.value),
            grad: View::of(&io.grad),
        }
    }
}

/// What is known of a parameter between the passes of a step.
#[derive(Default)]
pub(crate) struct ParamWork {
    /// Set while the parameter is being stepped.
    pub(crate) views: Option<ParamViews>,
    pub(crate) split: bool,
    /// Whether it has been stepped already.
    pub(crate) done: bool,
    /// Sums of the squares of the value and of the raw gradient.
    pub(crate) squares: [f64; 2],
}

/// Whether a parameter is computed in f64.
pub(crate) fn in_f64(slot: &ParamSlot) -> bool {
    slot.spec.dtype == DType::F64
}

/// Rows of tiles that make a part, for `across` tiles in a row.
fn group(across: usize) -> usize {
    256usize.div_ceil(across)
}

impl ParamWork {
    pub(crate) fn survey<T: Stateful>(&mut self, crew: &Crew<'_, T>, lead: &mut Lead<T>) {
        let Some(views) = self.views else { return };
        let rows = views.value.rows.div_ceil(HEIGHT);
        let group = group(views.value.tiles());
        let parts = sums(&mut lead.sums, rows.div_ceil(group), 2);
        spread(crew.parallel, 0, &mut *parts, &|part, sum: &mut [Sum]| {
            let range = part * group..rows.min((part + 1) * group);
            let mut own = crew.pool.tiles(HEIGHT);
            let out = &mut sum[0].products;
            crew.path.run(Survey {
                views,
                range,
                tiles: &mut own,
                out,
            });
        });
        let total = total(parts);
        self.squares = [total.products[0], total.products[1]];
    }

    /// Whether a bound on anything that is computed or stored comes near to the largest number.
    pub(crate) fn may_overflow(&self, slot: &ParamSlot, setting: &Setting) -> bool {
        let hyper = &slot.hyper;
        let [value, gradient] = self.squares.map(f64::sqrt);
        let gradient = gradient * setting.gamma(hyper).abs();
        let (computes, stores) = match slot.spec.dtype {
            DType::F64 => (1e120, 1e120),
            DType::F16 => (1e15, 3e4),
            _ => (1e15, 1e30),
        };
        let stored = value + 10.0 * hyper.lr * setting.lr_factor;
        let tame = hyper.beta1 == 0.0 || hyper.beta1 * hyper.beta1 < hyper.beta2;
        let certain =
            gradient < computes && stored < stores && tame && (in_f64(slot) || hyper.eps > 1e-30);
        !certain
    }

    pub(crate) fn commit<T: Stateful>(
        &mut self,
        crew: &Crew<'_, T>,
        slot: &mut ParamSlot,
        setting: &Setting,
    ) {
        let Some(views) = self.views.filter(|_| !self.done) else {
            return;
        };
        let hyper = slot.hyper;
        let t = slot.state.step + 1;
        let lr = hyper.lr * setting.lr_factor;
        let across = views.value.tiles();
        let rows = views.value.rows.div_ceil(HEIGHT);
        let group = group(across);
        let with = Numbers {
            adam: AdamNumbers::new(&hyper, t),
            gamma: T::of(setting.gamma(&hyper)),
            decay: T::of(decay::whole(&hyper, lr)),
            lr: T::of(lr),
            round: Round::of(hyper.rounding, Seed::new(&slot.spec.name, 0, t)),
        };
        let [first, second, largest] = Moment::ALL.map(StateKind::Param);
        let kinds = [first, second, largest, StateKind::ParamMaster];
        let [first, second, largest, master] = tensors(&mut slot.state, kinds);
        let moments = [first, second, largest].map(|memory| {
            let blocks = memory.and_then(T::blocks);
            blocks.map_or(Slices::none(), |blocks| Slices::new(blocks, group * across))
        });
        let master = match master {
            Some(Memory::Wide32(wide)) => Slices::new(&mut wide.blocks[..], group * across),
            _ => Slices::none(),
        };
        spread(
            crew.parallel,
            0,
            (moments, master),
            &|part, (moments, master)| {
                let range = part * group..rows.min((part + 1) * group);
                let mut own = crew.pool.tiles(HEIGHT);
                crew.path.run(Commit {
                    views,
                    with,
                    moments,
                    master,
                    range,
                    tiles: &mut own,
                });
            },
        );
        slot.state.step = t;
        self.done = true;
    }
}

/// The rows of a row of tiles.
fn rows_of(row: usize, view: &View) -> std::ops::Range<usize> {
    row * HEIGHT..view.rows.min((row + 1) * HEIGHT)
}

struct Survey<'j, T> {
    views: ParamViews,
    range: std::ops::Range<usize>,
    tiles: &'j mut Tiles<T>,
    out: &'j mut [f64],
}

impl<T: Real> Job for Survey<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Survey {
            views,
            range,
            tiles,
            out,
        } = self;
        let strips = &mut tiles.f[..HEIGHT];
        for row in range {
            let rows = rows_of(row, &views.value);
            for tile in 0..views.value.tiles() {
                for (view, out) in [views.value, views.grad].into_iter().zip(out.iter_mut()) {
                    view.load(simd, rows.clone(), tile, strips);
                    *out += strips[..rows.len()].iter().map(squares).sum::<f64>();
                }
            }
        }
    }
}

/// The numbers of a parameter's step.
#[derive(Clone, Copy)]
struct Numbers<T> {
    adam: AdamNumbers<T>,
    gamma: T,
    decay: T,
    lr: T,
    round: Round,
}

struct Commit<'j, T> {
    views: ParamViews,
    with: Numbers<T>,
    moments: [Slices<'j, Block<T>>; 3],
    master: Slices<'j, Block<f32>>,
    range: std::ops::Range<usize>,
    tiles: &'j mut Tiles<T>,
}

impl<T: Real> Job for Commit<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Commit {
            views,
            with,
            moments: [first, second, largest],
            master,
            range,
            tiles,
        } = self;
        let Tiles {
            f: values,
            g: gradients,
            ..
        } = tiles;
        let across = views.value.tiles();
        let gamma = T::splat(simd, with.gamma);
        for (local, row) in range.enumerate() {
            let rows = rows_of(row, &views.value);
            let count = rows.len();
            for tile in 0..across {
                let block = local * across + tile;
                views.value.load(simd, rows.clone(), tile, values);
                views.grad.load(simd, rows.clone(), tile, gradients);
                if master.exist() {
                    merge(
                        views.value.dtype,
                        &mut values[..count],
                        &master.items[block],
                    );
                }
                for i in 0..count {
                    let d = &mut gradients[i];
                    for d in T::vectors_mut::<S>(d) {
                        *d = T::mul(simd, gamma, *d);
                    }
                    let largest = largest.exist().then(|| &mut largest.items[block][i]);
                    let (first, second) = (&mut first.items[block][i], &mut second.items[block][i]);
                    adam(simd, &with.adam, d, first, second, largest);
                    descend(simd, &mut values[i], d, with.decay, with.lr);
                }
                if master.exist() {
                    narrow(&mut values[..count], &mut master.items[block]);
                }
                views
                    .value
                    .store(simd, rows.clone(), tile, &values[..count], with.round);
            }
        }
    }
}
