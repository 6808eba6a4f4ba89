//! Tensors in device memory, laid out as others might have them.

use std::sync::Arc;

use lora_pro_core::{HostTensor, Location, MatMut, MatRef};
use lora_pro_cuda::device::Device;

use super::layout::{Layout, StridedBuffer};

/// One tensor that a step borrows.
pub struct DeviceView {
    device: Arc<dyn Device>,
    at: u64,
    /// As it was put there.
    laid: StridedBuffer,
}

impl DeviceView {
    pub fn new(device: Arc<dyn Device>, tensor: &HostTensor, layout: Layout) -> Self {
        let laid = StridedBuffer::new(tensor, layout);
        let at = device.allocate(laid.bytes.len()).expect("memory");
        let view = DeviceView { device, at, laid };
        view.write();
        view
    }

    fn write(&self) {
        // SAFETY: as many bytes were allocated, for this tensor only.
        unsafe { self.device.write(0, self.at, &self.laid.bytes) }.expect("a copy");
    }

    /// Replaces the elements.
    pub fn put(&mut self, tensor: &HostTensor) {
        self.laid.put(tensor);
        self.write();
    }

    pub fn view(&self) -> MatRef<'_> {
        let at = self.at + self.laid.origin as u64;
        let (shape, strides) = (self.laid.shape, self.laid.strides);
        // SAFETY: `laid` has room for every element, and so has its copy on the device, which lives
        // as long as `self`.
        unsafe {
            MatRef::from_raw(
                at as *const u8,
                shape,
                strides,
                self.laid.dtype,
                Location::Cuda(0),
            )
        }
    }

    pub fn view_mut(&mut self) -> MatMut<'_> {
        let at = self.at + self.laid.origin as u64;
        let (shape, strides) = (self.laid.shape, self.laid.strides);
        // SAFETY: as in `view`, borrowed mutably; each element is reached once.
        unsafe {
            MatMut::from_raw(
                at as *mut u8,
                shape,
                strides,
                self.laid.dtype,
                Location::Cuda(0),
            )
        }
    }

    /// What is there now.
    pub fn home(&self) -> StridedBuffer {
        let mut laid = self.laid.clone();
        // SAFETY: as many bytes were allocated.
        unsafe { self.device.read(0, self.at, &mut laid.bytes) }.expect("a copy");
        laid
    }

    /// Whether it is as it was put there: elements and all that is around them.
    pub fn is_untouched(&self) -> bool {
        self.home() == self.laid
    }
}

impl Drop for DeviceView {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; the test device has done all work when a call returns.
        unsafe { self.device.free(self.at, self.laid.bytes.len()) };
    }
}
