//! Device memory that the backend owns.

use std::sync::Arc;

use lora_pro_core::Error;

use crate::device::Device;

/// Device memory that is given back with its owner.
pub struct DeviceBuffer {
    device: Arc<dyn Device>,
    at: u64,
    bytes: usize,
}

impl DeviceBuffer {
    /// Zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where there is not enough.
    pub fn zeros(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, Error> {
        let at = device.allocate(bytes)?;
        let buffer = DeviceBuffer {
            device: device.clone(),
            at,
            bytes,
        };
        // SAFETY: the memory was just allocated with as many bytes.
        unsafe { device.fill(0, at, 0, bytes)? };
        device.synchronize(0)?;
        Ok(buffer)
    }

    /// Its address.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is in it, after all work on the stream.
    ///
    /// # Errors
    /// [`Error::Backend`] where something of that work failed.
    pub fn read(&self, stream: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.bytes];
        // SAFETY: the buffer has as many bytes.
        unsafe { self.device.read(stream, self.at, &mut bytes)? };
        Ok(bytes)
    }

    /// Puts bytes at its start.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver refuses.
    ///
    /// # Panics
    /// Where there is no room for as many bytes.
    pub fn write(&self, stream: u64, bytes: &[u8]) -> Result<(), Error> {
        assert!(
            bytes.len() <= self.bytes,
            "as many bytes as there is room for"
        );
        // SAFETY: the buffer has at least as many bytes, and owns them.
        unsafe { self.device.write(stream, self.at, bytes) }
    }

    /// A copy on the device.
    pub(crate) fn copied(&self, stream: u64) -> Result<DeviceBuffer, Error> {
        let copy = DeviceBuffer::zeros(&self.device, self.bytes)?;
        copy.take(stream, self)?;
        Ok(copy)
    }

    /// Takes another buffer's bytes.
    pub(crate) fn take(&self, stream: u64, from: &DeviceBuffer) -> Result<(), Error> {
        debug_assert_eq!(self.bytes, from.bytes);
        // SAFETY: two buffers are never the same memory, and these have as many bytes.
        unsafe {
            self.device
                .copy(stream, from.at, self.at, self.bytes.min(from.bytes))
        }
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: the buffer owns its memory, and is kept as long as work on it is launched.
        unsafe { self.device.free(self.at, self.bytes) };
    }
}
