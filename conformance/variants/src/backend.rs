//! The copied reference as a backend, with one fault switched on.

use lora_pro_core::backend::{Buffer, Control, Slots, StateTensor, StepIo};
use lora_pro_core::{Backend, Error, Manifest, StepReport};

use crate::active::{BATCH, Batch, with};
use crate::reference::ReferenceBackend;
use crate::{FAULTS, SMALL_FAULTS};

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
