//! The passes over what grows with m or n. Each is cut into parts that depend on shapes only, and
//! runs them on one thread or several.

mod factored;
mod full;
mod gram;
mod moments;
mod thin;
mod tile_pass;
mod update;

pub(crate) use factored::{
    FactorUpdate, MomentUpdate, Transport, transport, update_factor, update_moments,
};
pub(crate) use full::{
    EquivalentPass, Stacking, WideOperands, by_rows, form_equivalent, gather, group, to_panel,
    wide_pass,
};
pub(crate) use gram::gram_pass;
pub(crate) use moments::{MomentTiles, Narrowed, Quantized8};
pub(crate) use thin::{ThinInput, keep_master, merge_master, squares};
pub(crate) use update::{
    Adjustment, FactorMut, Mode, UpdateParams, UpdateRule, subtract_update, update,
};
