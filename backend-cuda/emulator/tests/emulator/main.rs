//! The test device, tried on small kernels of its own (`tests/kernels`).

mod common;
mod device;
mod mutants;
mod right;
mod wrong;
