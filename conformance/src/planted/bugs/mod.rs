//! The bugs, by what is wrong.

use super::Bug;

mod adam;
mod batch;
mod closed_form;
mod factored;
mod gradients;
mod inverses;
mod options;
mod storage;
mod unpaired;
mod x;

const ALL: [&[Bug]; 10] = [
    closed_form::BUGS,
    x::BUGS,
    inverses::BUGS,
    adam::BUGS,
    factored::BUGS,
    options::BUGS,
    gradients::BUGS,
    batch::BUGS,
    storage::BUGS,
    unpaired::BUGS,
];

/// All of them.
pub fn bugs() -> impl Iterator<Item = &'static Bug> {
    ALL.into_iter().flatten()
}
