//! A step allocates nothing, once the first has shown how much memory it takes.
//!
//! A binary of its own, with one test: the allocator counts for the whole process.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Batch, METHODS, all_variants, cpu_with, hyper, mixed};
use lora_pro_core::{AdapterIo, Backend, DType};
use lora_pro_cpu::CpuOptions;

/// The system's allocator, counting.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn steps_do_not_allocate() {
    let make = || -> Box<dyn Backend> { cpu_with(CpuOptions::default().threads(1)) };
    for dtype in DType::PARAMETERS {
        for method in METHODS {
            for (moment_dtype, rounding) in all_variants(dtype) {
                let hyper = hyper(method).moment_dtype(moment_dtype).rounding(rounding);
                let mut batch = Batch::start(&make, &mixed(dtype), hyper).expect("valid");
                batch.step(1).expect("a step");
                let gradients = batch.gradients(2);
                let mut adapters: Vec<AdapterIo<'_>> = batch
                    .run
                    .adapters
                    .iter_mut()
                    .zip(&gradients)
                    .map(|(member, (a, b))| member.io(a, b))
                    .collect();
                let before = COUNT.load(Ordering::Relaxed);
                batch.run.optimizer.step(&mut adapters).expect("a step");
                let count = COUNT.load(Ordering::Relaxed) - before;
                assert_eq!(count, 0, "{method} {dtype} {moment_dtype} {rounding}");
            }
        }
    }
}
