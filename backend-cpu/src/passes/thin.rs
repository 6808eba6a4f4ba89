//! Where a pass reads its thin tiles from.

use lora_pro_core::DType;

use crate::panel::Panel;
use crate::simd::{Isa, Real, Strip};
use crate::view::View;

/// A thin matrix to be read.
#[derive(Clone, Copy)]
pub(crate) enum Source<'s, T> {
    /// Somebody else's memory.
    View(View),
    /// A 16-bit parameter with its master copy.
    Master(View, &'s Panel<f32>),
    /// Memory of ours.
    Panel(&'s Panel<T>),
}

impl<T: Real> Source<'_, T> {
    /// Rows and columns.
    pub(crate) fn shape(&self) -> [usize; 2] {
        match self {
            Source::View(view) | Source::Master(view, _) => [view.rows, view.len],
            Source::Panel(panel) => [panel.rows, panel.len],
        }
    }

    /// Copies a tile.
    #[inline(always)]
    pub(crate) fn load<S: Isa>(&self, simd: S, tile: usize, out: &mut [Strip<T>]) {
        match self {
            Source::View(view) => view.load(simd, 0..view.rows, tile, out),
            Source::Master(view, master) => {
                view.load(simd, 0..view.rows, tile, out);
                merge(view.dtype, out, master.tile(tile));
            }
            Source::Panel(panel) => out[..panel.rows].copy_from_slice(panel.tile(tile)),
        }
    }
}

/// Puts the master copy in a parameter's place, where the parameter is its rounding. An entry that
/// is not has been changed by somebody else, and stays.
#[inline(always)]
pub(crate) fn merge<T: Real>(dtype: DType, values: &mut [Strip<T>], master: &[Strip<f32>]) {
    match dtype {
        DType::Bf16 => merge_by(values, master, |x| half::bf16::from_f32(x).to_f32()),
        DType::F16 => merge_by(values, master, |x| half::f16::from_f32(x).to_f32()),
        // Other types have no master copy.
        DType::F32 | DType::F64 | DType::U8 => {}
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
