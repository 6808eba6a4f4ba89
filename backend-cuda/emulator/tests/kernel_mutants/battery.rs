//! The checks, cheap ones first: the first that fails ends the test.

use std::sync::atomic::{AtomicUsize, Ordering};

use lora_pro_core::Backend;
use lora_pro_cuda::Options;
use lora_pro_cuda_emulator::{Checks, test_device};

use crate::device::Scattered;
use crate::{base, batches, moments, params, refused, rounding, steps};

/// A backend whose tensors lie in all ways in the device's memory. Each one that is made runs its
/// threads in another order.
pub fn cuda() -> Box<dyn Backend> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    let device = test_device(Checks::Off, made as i32 % 5);
    let device = device.unwrap_or_else(|error| panic!("{error}"));
    Box::new(Scattered::new(device, Options::default(), made))
}

/// What a line starts with that says which check comes next.
pub const NEXT: &str = "next: ";

/// Says which check comes next: the last one that a failed battery has named is the one that failed.
pub fn next(check: &str) {
    println!("{NEXT}{check}");
}

pub fn run() {
    steps::small();
    params::check();
    params::refused();
    base::check();
    refused::broken();
    refused::unasked();
    refused::overflow();
    rounding::check();
    moments::check();
    batches::norm();
    batches::repeat();
    steps::large();
}
