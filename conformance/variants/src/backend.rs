//! The copied reference as a backend, with one fault switched on.

use std::cell::Cell;

use lora_pro_core::backend::{Buffer, Control, Slots, StateTensor, StepIo};
use lora_pro_core::{Backend, Error, Hyper, Manifest, StepReport};

use crate::reference::ReferenceBackend;
use crate::{FAULTS, SMALL_FAULTS};

thread_local! {
    /// The fault of the backend that is at work; 0 is none.
    static ACTIVE: Cell<usize> = const { Cell::new(0) };
    static BATCH: Cell<Batch> = const { Cell::new(Batch { s: 1.0, lr: 0.0, steps: 0 }) };
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

fn with<T>(fault: usize, work: impl FnOnce() -> T) -> T {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTIVE.set(self.0);
        }
    }
    let _restore = Restore(ACTIVE.replace(fault));
    work()
}

/// The reference with a fault.
pub struct VariantBackend {
    fault: usize,
    name: &'static str,
    reference: ReferenceBackend,
}

impl VariantBackend {
    /// The reference with the fault of this name; an unknown name is the reference itself.
    pub fn new(id: &'static str) -> Self {
        let mut all = FAULTS.iter().chain(&SMALL_FAULTS);
        let place = all.position(|fault| fault.id == id);
        VariantBackend {
            fault: place.map_or(0, |place| place + 1),
            name: id,
            reference: ReferenceBackend::new(),
        }
    }
}

impl Backend for VariantBackend {
    fn manifest(&self) -> Manifest {
        let mut manifest = self.reference.manifest();
        manifest.name = self.name.into();
        manifest
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        with(self.fault, || self.reference.allocate(tensor))
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        with(self.fault, || self.reference.download(tensor, buffer))
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        with(self.fault, || self.reference.upload(tensor, buffer, bytes))
    }

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        if let Some(first) = slots.adapters.first() {
            BATCH.set(Batch {
                s: first.spec.s(),
                lr: first.hyper.lr,
                steps: slots.adapters.iter().map(|slot| slot.state.step).sum(),
            });
        }
        with(self.fault, || self.reference.step(slots, io, control))
    }
}
