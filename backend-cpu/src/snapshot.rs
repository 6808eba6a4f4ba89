//! A way back, for an adapter or a parameter whose step might overflow.

use lora_pro_core::Error;
use lora_pro_core::backend::{Buffer, State, StateTensor};

use crate::memory::Memory;
use crate::panel::Panel;
use crate::path::{Job, Path};
use crate::rounding::Round;
use crate::simd::{Isa, WIDTH};
use crate::view::View;

/// Values and state as they were.
pub(crate) struct Snapshot {
    values: Vec<(View, &'static str, Panel<f64>)>,
    step: u64,
    state: Vec<Memory>,
}

impl Snapshot {
    /// Copies; each view has a name for errors.
    pub(crate) fn take<const N: usize>(
        path: Path,
        views: [(View, &'static str); N],
        state: &State,
    ) -> Self {
        let values = views.map(|(view, name)| {
            let mut panel = Panel::zeros(view.rows, view.len);
            path.run(Copy {
                view,
                panel: &mut panel,
                back: false,
            });
            (view, name, panel)
        });
        let memories = state
            .tensors
            .iter()
            .filter_map(|(_, buffer)| buffer.get::<Memory>());
        Snapshot {
            values: values.into_iter().collect(),
            step: state.step,
            state: memories.cloned().collect(),
        }
    }

    /// Whether what the step left is finite; the error names the first entry that is not.
    pub(crate) fn check(&self, path: Path, subject: &str, state: &State) -> Result<(), Error> {
        let fail = |tensor, (row, col, value)| {
            Err(Error::NonFinite {
                subject: subject.into(),
                tensor,
                row,
                col,
                value,
            })
        };
        for (view, name, _) in &self.values {
            let mut panel = Panel::zeros(view.rows, view.len);
            path.run(Copy {
                view: *view,
                panel: &mut panel,
                back: false,
            });
            let entries = (0..view.rows).flat_map(|i| (0..view.len).map(move |j| (i, j)));
            let mut entries = entries.map(|(i, j)| (i, j, panel.get(i, j)));
            if let Some((i, j, value)) = entries.find(|entry| !entry.2.is_finite()) {
                // B is seen transposed.
                let (row, col) = if name.starts_with('B') {
                    (j, i)
                } else {
                    (i, j)
                };
                return fail(name, (row, col, value));
            }
        }
        for (tensor, buffer) in &state.tensors {
            if let Some(found) = non_finite(tensor, buffer) {
                return fail(tensor.name(), found);
            }
        }
        Ok(())
    }

    /// Puts everything back.
    pub(crate) fn restore(mut self, path: Path, state: &mut State) {
        for (view, _, panel) in &mut self.values {
            path.run(Copy {
                view: *view,
                panel,
                back: true,
            });
        }
        state.step = self.step;
        let buffers = state
            .tensors
            .iter_mut()
            .filter_map(|(_, buffer)| buffer.get_mut::<Memory>());
        for (memory, old) in buffers.zip(self.state) {
            *memory = old;
        }
    }
}

fn non_finite(tensor: &StateTensor, buffer: &Buffer) -> Option<(usize, usize, f64)> {
    buffer.get::<Memory>()?.non_finite(tensor)
}

/// Between a view and a panel; every storage type goes through f64 unchanged.
struct Copy<'j> {
    view: View,
    panel: &'j mut Panel<f64>,
    back: bool,
}

impl Job for Copy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Copy { view, panel, back } = self;
        let rows = panel.rows;
        for tile in 0..panel.len.div_ceil(WIDTH) {
            let strips = &mut panel.strips[tile * rows..][..rows];
            if back {
                view.store(simd, 0..rows, tile, strips, Round::Nearest);
            } else {
                view.load(simd, 0..rows, tile, strips);
            }
        }
    }
}
