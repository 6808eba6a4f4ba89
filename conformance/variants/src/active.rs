//! Which fault is active on this thread, and what the edits of a fault may know of the step.

use std::cell::Cell;

use lora_pro_core::Hyper;

thread_local! {
    /// The fault of the backend that is at work; 0 is none.
    static ACTIVE: Cell<usize> = const { Cell::new(0) };
    pub(crate) static BATCH: Cell<Batch> = const { Cell::new(Batch { s: 1.0, lr: 0.0, steps: 0 }) };
    static KEPT: Cell<f64> = const { Cell::new(1.0) };
}

/// What a fault may see of the other adapters of a step.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    /// The first adapter's scale.
    pub s: f64,
    /// The first adapter's learning rate.
    pub lr: f64,
    /// Steps that all adapters have taken.
    pub steps: u64,
}

pub(crate) fn active() -> usize {
    ACTIVE.get()
}

pub(crate) fn batch() -> Batch {
    BATCH.get()
}

/// Carries a number from one edit of a fault to another.
pub(crate) fn keep(number: f64) {
    KEPT.set(number);
}

pub(crate) fn kept() -> f64 {
    KEPT.get()
}

/// Hyper-parameters that outlive the expression that makes them. They are never freed: a few bytes
/// for each step of a backend that only tests use.
pub(crate) fn kept_hyper(hyper: Hyper) -> &'static Hyper {
    Box::leak(Box::new(hyper))
}

/// The reference's own answer, whatever the fault.
pub(crate) fn without_fault<T>(exact: impl FnOnce() -> T) -> T {
    with(0, exact)
}

/// `work` with this fault active; 0 is none.
pub(crate) fn with<T>(fault: usize, work: impl FnOnce() -> T) -> T {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTIVE.set(self.0);
        }
    }
    let _restore = Restore(ACTIVE.replace(fault));
    work()
}
