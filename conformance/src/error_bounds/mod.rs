//! What rounding explains: for one step, how far each result of a correct backend may be from
//! that of exact arithmetic.
//!
//! A backend computes thin matrices with unit round-off u and everything r x r (Gram matrices,
//! inverses, X) with w = 2^-53. Its errors are those of an exact computation on slightly wrong
//! operands; each is followed to the result by norms that the reference computes for the case.
//! ErrorBound on a matrix is carried as one number per column (of what belongs to A) or per row (of
//! what belongs to B), or per entry where something element-wise follows:
//!
//! | from | to | by |
//! |---|---|---|
//! | u on gA, or on the coefficients applied to it | U = SB^+ gA / s^2 | \|SB^+\| |
//! | w on SB | U | \|SB^+\| \|SB\|, since d(S^-1) = -S^-1 dS S^-1 |
//! | noise D of N, as gA = s B'N | U | \|SB^+\|^(1/2), the norm of SB^+ B' |
//! | noise D of U, as SB X + X SA = -U A' | X A, B X | 1 and 1/2, since \|a / (a + b)\| <= 1 |
//! | u on X or A | X A | \|X\| \|A\| |
//! | noise of x | b M + (1 - b) x | 1 - b |
//! | noise of x | (b V + (1 - b) x^2)^(1/2) | (1 - b)^(1/2): it is the length of a vector |
//! | noise of a root | M / (root + eps) | \|N\| / (root + eps) |
//!
//! In what is stored, the rounding of its storage type is added.

mod adam;
mod closed_form;
mod factored;
mod norms;
mod step;

pub use step::{ErrorBound, StepInput, error_bound, param_error_bound};
