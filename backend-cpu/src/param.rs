//! Unpaired parameters: ordinary AdamW, in tiles of 6 x 64.

use std::ops::Range;

use lora_pro_core::backend::ParamSlot;
use lora_pro_core::{DType, Error, ParamIo};

use crate::adapter::StepFactors;
use crate::decay;
use crate::kernels::{AdamNumbers, adam};
use crate::overflow::{N_BOUND, OverflowLimits, adam_is_bounded};
use crate::panel::{HEIGHT, WideTile};
use crate::parallel::{ParallelCtx, Slices, Splittable, parallel_for, splittable};
use crate::passes::{keep_master, merge_master, squares, subtract_update};
use crate::rounding::{Round, Seed};
use crate::simd::{Isa, Real};
use crate::simd_level::Kernel;
use crate::typed_state::{AdamMoments, MomentElement, ParamState};
use crate::view::{ViewMut, ViewRef};
use crate::workspace::{AdapterWorkspace, ThreadWorkspace, sums, total};

/// A parameter's tensors to read.
pub(crate) struct ParamRefs<'a> {
    value: ViewRef<'a>,
    grad: ViewRef<'a>,
}

impl<'a> ParamRefs<'a> {
    /// # Errors
    /// As for [`ViewRef::of`].
    pub(crate) fn of(io: &'a ParamIo<'_>) -> Result<Self, Error> {
        Ok(ParamRefs {
            value: ViewRef::of(&io.value.view())?,
            grad: ViewRef::of(&io.grad)?,
        })
    }
}

/// A parameter's tensors to step.
pub(crate) struct ParamViews<'a> {
    pub(crate) value: [ViewMut<'a>; 1],
    grad: ViewRef<'a>,
}

impl<'a> ParamViews<'a> {
    /// # Errors
    /// As for [`ViewRef::of`].
    pub(crate) fn of(io: &'a mut ParamIo<'_>) -> Result<Self, Error> {
        Ok(ParamViews {
            grad: ViewRef::of(&io.grad)?,
            value: [ViewMut::of(&mut io.value)?],
        })
    }
}

/// What is known of a parameter between the rounds of a step.
#[derive(Default)]
pub(crate) struct ParamWork {
    /// Whether it is stepped.
    pub(crate) listed: bool,
    /// Whether its passes are cut up for several threads.
    pub(crate) split: bool,
    /// Whether it has been stepped already.
    pub(crate) done: bool,
    /// Sums of the squares of the value and of the raw gradient.
    squares: [f64; 2],
}

/// Whether a parameter is computed in f64.
pub(crate) fn in_f64(slot: &ParamSlot) -> bool {
    slot.spec.dtype == DType::F64
}

/// Why fetching the state of a step cannot fail: the backend does so once before anything is
/// written, and returns the error.
const CHECKED: &str = "the state was checked when the step began";

/// Checks that a parameter's state has what AdamW needs, as this backend stores it.
///
/// # Errors
/// As for [`ParamState::of`].
pub(crate) fn check_state(slot: &mut ParamSlot) -> Result<(), Error> {
    if in_f64(slot) {
        ParamState::<f64>::of(&slot.spec, &slot.hyper, &mut slot.state).map(drop)
    } else {
        ParamState::<f32>::of(&slot.spec, &slot.hyper, &mut slot.state).map(drop)
    }
}

/// Rows of tiles that make a part, for `across` tiles in a row.
fn group(across: usize) -> usize {
    256usize.div_ceil(across)
}

impl ParamWork {
    /// The sums of squares.
    pub(crate) fn sum_squares<T: Real>(
        &mut self,
        ctx: &ParallelCtx<'_, T>,
        workspace: &mut AdapterWorkspace<T>,
        refs: &ParamRefs<'_>,
    ) {
        let views = [refs.value.folded(), refs.grad.folded()];
        let rows = views[0].rows().div_ceil(HEIGHT);
        let group = group(views[0].tiles());
        let parts = sums(&mut workspace.sums, rows.div_ceil(group), 2);
        parallel_for(ctx.parallel, 0, &mut *parts, &|part, sum: &mut [_]| {
            ctx.level.run(SquareSums {
                views,
                range: part * group..rows.min((part + 1) * group),
                workspace: &mut ctx.workspaces.thread(HEIGHT),
                out: &mut sum[0].products,
            });
        });
        let total = total(parts);
        self.squares = [total.products[0], total.products[1]];
    }

    /// True where every entry of the value and the gradient is finite, and their squares are.
    pub(crate) fn is_finite(&self) -> bool {
        self.squares.iter().all(|x| x.is_finite())
    }

    /// The square of the gradient's norm, as handed in.
    pub(crate) fn gradient_square(&self) -> f64 {
        self.squares[1]
    }

    /// False where norms exclude an overflow of what is computed or stored.
    pub(crate) fn overflow_is_possible(&self, slot: &ParamSlot, factors: &StepFactors) -> bool {
        let hyper = &slot.hyper;
        let [value, gradient] = self.squares.map(f64::sqrt);
        let gradient = gradient * factors.gamma(hyper).abs();
        let stored = value + N_BOUND * hyper.lr * factors.lr_factor;
        let limits = OverflowLimits::of(in_f64(slot), slot.spec.dtype);
        let excluded = gradient < limits.computed
            && stored < limits.stored
            && adam_is_bounded(hyper, in_f64(slot));
        !excluded
    }

    /// Writes the step, once: value, state, counter.
    pub(crate) fn commit<T: MomentElement>(
        &mut self,
        ctx: &ParallelCtx<'_, T>,
        slot: &mut ParamSlot,
        views: &mut ParamViews<'_>,
        factors: &StepFactors,
    ) {
        if self.done {
            return;
        }
        let hyper = slot.hyper;
        let t = slot.state.step + 1;
        let lr = hyper.lr * factors.lr_factor;
        let [value] = &mut views.value;
        let (value, grad) = (value.reborrow().folded(), views.grad.folded());
        let across = value.as_ref().tiles();
        let group = group(across);
        let numbers = StepNumbers {
            adam: AdamNumbers::new(&hyper, t),
            gamma: T::of(factors.gamma(&hyper)),
            decay: T::of(decay::one_minus_lr_w(&hyper, lr)),
            lr: T::of(lr),
            round: Round::of(hyper.rounding, Seed::new(&slot.spec.name, 0, t)),
        };
        let state = ParamState::<T>::of(&slot.spec, &hyper, &mut slot.state).expect(CHECKED);
        let stride = group * across;
        let parts = AdamWParts {
            value: RowGroups {
                value,
                rows: group * HEIGHT,
            },
            moments: state
                .moments
                .map(|matrix| Slices::new(&mut matrix.blocks, stride)),
            master: state
                .master
                .map(|matrix| Slices::new(&mut matrix.blocks, stride)),
        };
        parallel_for(ctx.parallel, 0, parts, &|part, parts| {
            ctx.level.run(AdamW {
                parts,
                grad,
                first_row: part * group * HEIGHT,
                numbers,
                workspace: &mut ctx.workspaces.thread(HEIGHT),
            });
        });
        slot.state.step = t;
        self.done = true;
    }
}

/// The rows of a row of tiles.
fn rows_of(row: usize, rows: usize) -> Range<usize> {
    row * HEIGHT..rows.min((row + 1) * HEIGHT)
}

struct SquareSums<'k, T> {
    views: [ViewRef<'k>; 2],
    range: Range<usize>,
    workspace: &'k mut ThreadWorkspace<T>,
    out: &'k mut [f64],
}

impl<T: Real> Kernel for SquareSums<'_, T> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let SquareSums {
            views,
            range,
            workspace,
            out,
        } = self;
        let strips = &mut workspace.f[..HEIGHT];
        for row in range {
            let rows = rows_of(row, views[0].rows());
            for tile in 0..views[0].tiles() {
                for (view, out) in views.into_iter().zip(out.iter_mut()) {
                    view.load(simd, rows.clone(), tile, strips);
                    *out += strips[..rows.len()].iter().map(squares).sum::<f64>();
                }
            }
        }
    }
}

/// The numbers of a parameter's step.
#[derive(Clone, Copy)]
struct StepNumbers<T> {
    adam: AdamNumbers<T>,
    gamma: T,
    decay: T,
    lr: T,
    round: Round,
}

/// A parameter, cut into groups of so many rows.
struct RowGroups<'k> {
    value: ViewMut<'k>,
    rows: usize,
}

impl Splittable for RowGroups<'_> {
    fn count(&self) -> usize {
        self.value.as_ref().rows().div_ceil(self.rows)
    }

    fn split(self, at: usize) -> (Self, Self) {
        let rows = self.rows;
        let (before, after) = self.value.split_at_row(at * rows);
        let group = |value| RowGroups { value, rows };
        (group(before), group(after))
    }
}

/// What a part of the pass writes.
struct AdamWParts<'k, T> {
    value: RowGroups<'k>,
    moments: AdamMoments<Slices<'k, WideTile<T>>>,
    master: Option<Slices<'k, WideTile<f32>>>,
}

splittable!([T: Real] AdamWParts<'_, T> { value, moments, master });

struct AdamW<'k, T> {
    parts: AdamWParts<'k, T>,
    grad: ViewRef<'k>,
    first_row: usize,
    numbers: StepNumbers<T>,
    workspace: &'k mut ThreadWorkspace<T>,
}

impl<T: Real> Kernel for AdamW<'_, T> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let AdamW {
            parts,
            grad,
            first_row,
            numbers,
            workspace,
        } = self;
        let AdamWParts {
            value: RowGroups { mut value, .. },
            moments,
            mut master,
        } = parts;
        let AdamMoments {
            first,
            second,
            mut max_second,
        } = moments;
        let ThreadWorkspace { f, g, .. } = workspace;
        let view = value.as_ref();
        let (whole, across, storage) = (view.rows(), view.tiles(), view.storage());
        let gamma = T::splat(simd, numbers.gamma);
        for row in 0..whole.div_ceil(HEIGHT) {
            let rows = rows_of(row, whole);
            let count = rows.len();
            for tile in 0..across {
                let block = row * across + tile;
                value.as_ref().load(simd, rows.clone(), tile, f);
                let of_grad = first_row + rows.start..first_row + rows.end;
                grad.load(simd, of_grad, tile, g);
                if let Some(master) = &mut master {
                    merge_master(storage, &mut f[..count], &master.items[block]);
                }
                for i in 0..count {
                    let d = &mut g[i];
                    for d in T::vectors_mut::<S>(d) {
                        *d = T::mul(simd, gamma, *d);
                    }
                    let max_second = max_second.as_mut().map(|x| &mut x.items[block][i]);
                    let (first, second) = (&mut first.items[block][i], &mut second.items[block][i]);
                    adam(simd, &numbers.adam, d, first, second, max_second);
                    subtract_update(simd, &mut f[i], d, numbers.decay, numbers.lr);
                }
                if let Some(master) = &mut master {
                    keep_master(&mut f[..count], &mut master.items[block]);
                }
                value.store(simd, rows.clone(), tile, &f[..count], numbers.round);
            }
        }
    }
}
