//! Where a pass reads its thin tiles from.

use crate::panel::Panel;
use crate::simd::{Isa, Real, Strip};
use crate::storage::Storage;
use crate::view::ViewRef;

/// A thin matrix to be read.
#[derive(Clone, Copy)]
pub(crate) enum ThinInput<'s, T> {
    /// The caller's memory.
    View(ViewRef<'s>),
    /// A 16-bit parameter with its master copy.
    Master(ViewRef<'s>, &'s Panel<f32>),
    /// Scratch memory.
    Panel(&'s Panel<T>),
}

impl<'s, T: Real> ThinInput<'s, T> {
    /// A factor, through its master copy where it has one.
    pub(crate) fn factor(view: ViewRef<'s>, master: Option<&'s Panel<f32>>) -> Self {
        match master {
            None => ThinInput::View(view),
            Some(master) => ThinInput::Master(view, master),
        }
    }

    /// Rows and columns.
    pub(crate) fn shape(&self) -> [usize; 2] {
        match self {
            ThinInput::View(view) | ThinInput::Master(view, _) => [view.rows(), view.len()],
            ThinInput::Panel(panel) => [panel.rows, panel.len],
        }
    }

    /// Copies a tile.
    #[inline(always)]
    pub(crate) fn load<S: Isa>(&self, simd: S, tile: usize, out: &mut [Strip<T>]) {
        match self {
            ThinInput::View(view) => view.load(simd, 0..view.rows(), tile, out),
            ThinInput::Master(view, master) => {
                view.load(simd, 0..view.rows(), tile, out);
                merge_master(view.storage(), out, master.tile(tile));
            }
            ThinInput::Panel(panel) => out[..panel.rows].copy_from_slice(panel.tile(tile)),
        }
    }
}

/// Puts the master copy in a parameter's place, where the parameter is its rounding. An entry that
/// is not was modified by the caller, and stays.
#[inline(always)]
pub(crate) fn merge_master<T: Real>(
    storage: Storage,
    values: &mut [Strip<T>],
    master: &[Strip<f32>],
) {
    match storage {
        Storage::Bf16 => merge_by(values, master, |x| half::bf16::from_f32(x).to_f32()),
        Storage::F16 => merge_by(values, master, |x| half::f16::from_f32(x).to_f32()),
        // These have no master copy.
        Storage::F32 | Storage::F64 => {}
    }
}

#[inline(always)]
fn merge_by<T: Real>(values: &mut [Strip<T>], master: &[Strip<f32>], stored: impl Fn(f32) -> f32) {
    for (values, master) in values.iter_mut().zip(master) {
        for (value, master) in values.iter_mut().zip(master) {
            if T::of_f32(stored(*master)) == *value {
                *value = T::of_f32(*master);
            }
        }
    }
}

/// Keeps values in the master copy, and takes them back as it keeps them: the parameter must be
/// the rounding of the copy.
#[inline(always)]
pub(crate) fn keep_master<T: Real>(values: &mut [Strip<T>], master: &mut [Strip<f32>]) {
    for (values, master) in values.iter_mut().zip(master) {
        for (value, master) in values.iter_mut().zip(master) {
            *master = value.narrow();
            *value = T::of_f32(*master);
        }
    }
}

/// Widens a tile to f64, and zeroes what pads it to whole blocks.
#[inline(always)]
pub(crate) fn widen<T: Real>(out: &mut [Strip<f64>], strips: &[Strip<T>]) {
    for (out, strip) in out.iter_mut().zip(strips) {
        for (out, x) in out.iter_mut().zip(strip) {
            *out = x.wide();
        }
    }
    for out in out.iter_mut().skip(strips.len()) {
        out.fill(0.0);
    }
}

/// The sum of squares, in f64.
#[inline(always)]
pub(crate) fn squares<T: Real>(strip: &Strip<T>) -> f64 {
    let mut lanes = [0.0f64; 8];
    for chunk in strip.chunks_exact(8) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x.wide() * x.wide();
        }
    }
    lanes.iter().sum()
}
