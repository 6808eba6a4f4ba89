//! The CUDA backend on tensors in device memory, its kernels on the CPU: what the laws, which go
//! through contiguous copies of host tensors, do not reach.

#[path = "../common/mod.rs"]
mod common;

mod counting;
mod model;

mod capture;
mod deferred;
mod errors;
mod graph_parameters;
mod hyper;
mod large;
mod layouts;
mod memory;
mod overflow;
mod sets;
mod struct_layout;
