//! What a GPU can do beyond what the backend asks of it: streams, graphs, time.

use std::any::Any;

use lora_pro_core::Error;
use lora_pro_cuda::Driver;
use lora_pro_cuda::driver::{Elapsed, Graph};

/// The driver's, and that of the tests.
pub trait Gpu {
    /// Its properties, by name.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver does not say.
    fn facts(&self) -> Result<Vec<(String, String)>, Error>;

    /// A stream that does not wait for the default stream.
    ///
    /// # Errors
    /// [`Error::Backend`] where there is none to have.
    fn stream(&self) -> Result<Stream, Error>;

    /// From here on, what is put into the stream is recorded instead of done.
    ///
    /// # Errors
    /// [`Error::Backend`] for a stream that cannot be captured.
    fn begin_capture(&self, stream: u64) -> Result<(), Error>;

    /// The end of what [`Gpu::begin_capture`] began.
    ///
    /// # Errors
    /// [`Error::Backend`] where something was done that cannot be recorded.
    fn end_capture(&self, stream: u64) -> Result<Box<dyn Replay>, Error>;

    /// Times what `work` puts into a stream, and waits for it.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Backend`] where something of it failed.
    fn time(
        &self,
        stream: u64,
        work: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Elapsed, Error>;
}

/// What was captured.
pub trait Replay {
    /// How many launches, copies and fills it holds.
    fn nodes(&self) -> usize;

    /// Does all of it.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver refuses.
    ///
    /// # Safety
    /// The device is still there, and all memory that was used is still what it was then.
    unsafe fn launch(&self, stream: u64) -> Result<(), Error>;
}

/// A stream, for as long as this is kept.
pub struct Stream {
    /// What the backend takes.
    pub raw: u64,
    /// Whose end is the stream's.
    pub keeper: Box<dyn Any>,
}

impl Gpu for Driver {
    fn facts(&self) -> Result<Vec<(String, String)>, Error> {
        let facts = Driver::facts(self)?.into_iter();
        Ok(facts.map(|(name, value)| (name.into(), value)).collect())
    }

    fn stream(&self) -> Result<Stream, Error> {
        let stream = Driver::stream(self)?;
        Ok(Stream {
            raw: stream.raw(),
            keeper: Box::new(stream),
        })
    }

    fn begin_capture(&self, stream: u64) -> Result<(), Error> {
        Driver::begin_capture(self, stream)
    }

    fn end_capture(&self, stream: u64) -> Result<Box<dyn Replay>, Error> {
        Ok(Box::new(Driver::end_capture(self, stream)?))
    }

    fn time(
        &self,
        stream: u64,
        work: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Elapsed, Error> {
        Driver::time(self, stream, work)
    }
}

impl Replay for Graph {
    fn nodes(&self) -> usize {
        Graph::nodes(self)
    }

    unsafe fn launch(&self, stream: u64) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { Graph::launch(self, stream) }
    }
}
