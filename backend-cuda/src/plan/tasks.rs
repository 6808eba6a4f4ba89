//! How the work of a pass is cut into tasks, one for each block.

use crate::constants::{CHUNK_ENTRIES, STRIP};
use crate::model::{Adapter, Param, Task};

/// How an adapter is cut.
#[derive(Clone, Copy)]
pub(super) enum Cut {
    Whole,
    Sides,
    /// Chunks of columns of both sides.
    Chunks,
    /// Strips of columns by groups of rows.
    Wide,
    /// Entries of W0.
    Base,
}

pub(super) fn tasks(cut: Cut, item: u32, adapter: &Adapter) -> Vec<Task> {
    let task = |side, chunk, other| Task {
        item,
        side,
        chunk,
        other,
    };
    let [n, m] = adapter.side.map(|side| side.len as usize);
    match cut {
        Cut::Whole => vec![task(0, 0, 0)],
        Cut::Sides => (0..2).map(|side| task(side, 0, 0)).collect(),
        Cut::Chunks => (0..2)
            .flat_map(|side| {
                let count = adapter.side[side as usize].chunk_count as u32;
                (0..count).map(move |chunk| task(side, chunk, 0))
            })
            .collect(),
        Cut::Wide => {
            let groups = m.div_ceil(adapter.wide_rows as usize) as u32;
            let strips = n.div_ceil(STRIP) as u32;
            (0..groups)
                .flat_map(|group| (0..strips).map(move |strip| task(0, strip, group)))
                .collect()
        }
        Cut::Base => (0..(m * n).div_ceil(CHUNK_ENTRIES) as u32)
            .map(|chunk| task(0, chunk, 0))
            .collect(),
    }
}

/// The chunks of a parameter.
pub(super) fn param_chunks(item: u32, param: &Param) -> impl Iterator<Item = Task> + use<> {
    (0..param.chunk_count as u32).map(move |chunk| Task {
        item,
        chunk,
        ..Task::default()
    })
}
