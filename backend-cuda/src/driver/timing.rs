//! How long the device takes.

use std::time::Instant;

use lora_pro_core::Error;

use super::Driver;
use super::event::Event;
use crate::device::Device;

/// A time, and by whose clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elapsed {
    /// What it took.
    pub milliseconds: f64,
    /// Whether the device took the time. Otherwise the host did: launching and waiting are in it.
    pub by_device: bool,
}

impl Driver {
    /// Times what `work` puts into a stream, and waits for it.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Backend`] where something of it failed.
    pub fn time(
        &self,
        stream: u64,
        work: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Elapsed, Error> {
        let (start, end) = (
            Event::new(&self.context, true)?,
            Event::new(&self.context, true)?,
        );
        self.synchronize(stream)?;
        let host = Instant::now();
        start.record(stream)?;
        work()?;
        end.record(stream)?;
        self.synchronize(stream)?;
        let host = host.elapsed().as_secs_f64() * 1e3;
        let device = end.since(&start)?;
        Ok(Elapsed {
            milliseconds: device.unwrap_or(host),
            by_device: device.is_some(),
        })
    }
}
