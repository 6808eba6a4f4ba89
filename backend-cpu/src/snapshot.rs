//! A way back, for an adapter or a parameter whose step is at risk of an overflow.

use lora_pro_core::Error;
use lora_pro_core::backend::State;

use crate::panel::Panel;
use crate::rounding::Round;
use crate::simd::{Isa, WIDTH};
use crate::simd_level::{Kernel, SimdLevel};
use crate::state::StateMemory;
use crate::view::{ViewMut, ViewRef};

/// How the values of one snapshot are named in errors.
#[derive(Clone, Copy)]
pub(crate) struct NamedValues {
    pub(crate) name: &'static str,
    /// Whether the view is of the tensor's transpose.
    pub(crate) transposed: bool,
}

/// Values, state and report as they were before a step.
pub(crate) struct Snapshot<R, const N: usize> {
    names: [NamedValues; N],
    values: [Panel<f64>; N],
    step: u64,
    state: Vec<StateMemory>,
    report: R,
}

impl<R, const N: usize> Snapshot<R, N> {
    /// Copies of what a step is about to write.
    pub(crate) fn take(
        level: SimdLevel,
        names: [NamedValues; N],
        values: &[ViewMut<'_>; N],
        state: &State,
        report: R,
    ) -> Self {
        let memories = state
            .tensors
            .iter()
            .filter_map(|(_, buffer)| buffer.get::<StateMemory>());
        Snapshot {
            names,
            values: values.each_ref().map(|view| copy(level, view.as_ref())),
            step: state.step,
            state: memories.cloned().collect(),
            report,
        }
    }

    /// Whether what the step left is finite; the error names the first entry that is not.
    pub(crate) fn check(
        &self,
        level: SimdLevel,
        subject: &str,
        values: &[ViewMut<'_>; N],
        state: &State,
    ) -> Result<(), Error> {
        let fail = |tensor, (row, col, value)| {
            Err(Error::NonFinite {
                subject: subject.into(),
                tensor,
                row,
                col,
                value,
            })
        };
        for (view, named) in values.iter().zip(self.names) {
            let panel = copy(level, view.as_ref());
            let entries = (0..panel.rows).flat_map(|i| (0..panel.len).map(move |j| (i, j)));
            let mut entries = entries.map(|(i, j)| (i, j, panel.get(i, j)));
            if let Some((i, j, value)) = entries.find(|entry| !entry.2.is_finite()) {
                let (row, col) = if named.transposed { (j, i) } else { (i, j) };
                return fail(named.name, (row, col, value));
            }
        }
        for (tensor, buffer) in &state.tensors {
            let memory = buffer.get::<StateMemory>();
            if let Some(found) = memory.and_then(|memory| memory.non_finite(tensor)) {
                return fail(tensor.name(), found);
            }
        }
        Ok(())
    }

    /// Puts values and state back; returns the report.
    pub(crate) fn restore(
        self,
        level: SimdLevel,
        values: &mut [ViewMut<'_>; N],
        state: &mut State,
    ) -> R {
        for (view, panel) in values.iter_mut().zip(&self.values) {
            let view = view.reborrow();
            level.run(CopyBack { view, panel });
        }
        state.step = self.step;
        let buffers = state
            .tensors
            .iter_mut()
            .filter_map(|(_, buffer)| buffer.get_mut::<StateMemory>());
        for (memory, old) in buffers.zip(self.state) {
            *memory = old;
        }
        self.report
    }
}

fn copy(level: SimdLevel, view: ViewRef<'_>) -> Panel<f64> {
    let mut panel = Panel::zeros(view.rows(), view.len());
    let out = &mut panel;
    level.run(CopyOut { view, out });
    panel
}

/// From a view; every storage type becomes f64 and back unchanged.
struct CopyOut<'k> {
    view: ViewRef<'k>,
    out: &'k mut Panel<f64>,
}

impl Kernel for CopyOut<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let CopyOut { view, out } = self;
        let rows = out.rows;
        for tile in 0..out.len.div_ceil(WIDTH) {
            let strips = &mut out.strips[tile * rows..][..rows];
            view.load(simd, 0..rows, tile, strips);
        }
    }
}

/// The other way round.
struct CopyBack<'k> {
    view: ViewMut<'k>,
    panel: &'k Panel<f64>,
}

impl Kernel for CopyBack<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let CopyBack { mut view, panel } = self;
        for tile in 0..panel.len.div_ceil(WIDTH) {
            view.store(simd, 0..panel.rows, tile, panel.tile(tile), Round::Nearest);
        }
    }
}
