//! A backend whose panics are errors: a subject that breaks must not take the kit with it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lora_pro_core::backend::{Buffer, Control, Slots, StateTensor, StepIo};
use lora_pro_core::{Backend, Error, Manifest, StepReport};

/// Any backend.
pub(crate) struct CatchPanic(pub Box<dyn Backend>);

impl CatchPanic {
    fn call<T>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut dyn Backend) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // What a panic leaves half done is the subject's, and a run ends with its first error.
        let outcome = catch_unwind(AssertUnwindSafe(|| work(self.0.as_mut())));
        outcome.unwrap_or_else(|panic| Err(panicked(what, panic.as_ref())))
    }
}

fn panicked(what: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("without a word");
    Error::backend("subject's", format!("{what} panicked: {text}"))
}

impl Backend for CatchPanic {
    fn manifest(&self) -> Manifest {
        self.0.manifest()
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        self.call("allocate", |inner| inner.allocate(tensor))
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        let work = AssertUnwindSafe(|| self.0.download(tensor, buffer));
        catch_unwind(work).unwrap_or_else(|panic| Err(panicked("download", panic.as_ref())))
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.call("upload", |inner| inner.upload(tensor, buffer, bytes))
    }

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        self.call("step", |inner| inner.step(slots, io, control))
    }

    fn sync(&mut self, slots: Slots<'_>) -> Result<(), Error> {
        self.call("sync", |inner| inner.sync(slots))
    }
}
