//! Tensors on the host, stepped on a device: copied over before each step and back after it.
//!
//! For programs whose model is on the host, and for tests. A model on the device is stepped where it
//! is by [`CudaBackend`].

use std::sync::Arc;

use lora_pro_core::backend::{self, Control, Slots, StepIo};
use lora_pro_core::{
    AdapterId, AdapterIo, Backend, Error, HostTensor, Location, Manifest, MatMut, MatRef, ParamId,
    ParamIo, StepReport,
};

use crate::backend::{CudaBackend, Options};
use crate::device::Device;
use crate::device_buffer::DeviceBuffer;

/// The CUDA backend for host tensors.
pub struct StagedCudaBackend {
    inner: CudaBackend,
    device: Arc<dyn Device>,
    ordinal: usize,
    /// Device copies by adapter: A, B, gA, gB, W0; by parameter: value, gradient.
    adapters: Vec<[Option<DeviceBuffer>; 5]>,
    params: Vec<[Option<DeviceBuffer>; 2]>,
}

impl StagedCudaBackend {
    /// On the GPU with this number.
    ///
    /// # Errors
    /// As [`crate::Driver::new`].
    pub fn new(ordinal: usize) -> Result<Self, Error> {
        Ok(Self::of(CudaBackend::new(ordinal)?))
    }

    /// On any device: for the emulator.
    pub fn on(device: Arc<dyn Device>) -> Self {
        Self::of(CudaBackend::on(device, Options::default()))
    }

    fn of(inner: CudaBackend) -> Self {
        let device = inner.device().clone();
        StagedCudaBackend {
            ordinal: device.info().ordinal,
            inner,
            device,
            adapters: Vec::new(),
            params: Vec::new(),
        }
    }

    /// Copies everything over.
    fn upload(&mut self, slots: &Slots<'_>, io: &StepIo<'_, '_>, stream: u64) -> Result<(), Error> {
        self.adapters
            .resize_with(slots.adapters.len(), Default::default);
        self.params
            .resize_with(slots.params.len(), Default::default);
        let device = &self.device;
        for adapter in io.adapters.iter() {
            let [a, b, grad_a, grad_b, base] = &mut self.adapters[adapter.id.index()];
            upload(device, stream, a, &adapter.a.view())?;
            upload(device, stream, b, &adapter.b.view())?;
            upload(device, stream, grad_a, &adapter.grad_a)?;
            upload(device, stream, grad_b, &adapter.grad_b)?;
            let wanted = slots.adapters[adapter.id.index()].hyper.decay_base;
            if let Some(view) = adapter.w0.as_ref().filter(|_| wanted) {
                upload(device, stream, base, &view.view())?;
            }
        }
        for param in io.params.iter() {
            let [value, grad] = &mut self.params[param.id.index()];
            upload(device, stream, value, &param.value.view())?;
            upload(device, stream, grad, &param.grad)?;
        }
        Ok(())
    }

    /// Copies everything that a step writes back.
    fn download(&self, io: &mut StepIo<'_, '_>, stream: u64) -> Result<(), Error> {
        for adapter in io.adapters.iter_mut() {
            let [a, b, _, _, base] = &self.adapters[adapter.id.index()];
            download(stream, a, &mut adapter.a)?;
            download(stream, b, &mut adapter.b)?;
            if let (Some(view), Some(_)) = (&mut adapter.w0, base) {
                download(stream, base, view)?;
            }
        }
        for param in io.params.iter_mut() {
            download(stream, &self.params[param.id.index()][0], &mut param.value)?;
        }
        Ok(())
    }
}

/// Copies a host tensor over, row by row; allocates where there was no room yet.
fn upload(
    device: &Arc<dyn Device>,
    stream: u64,
    buffer: &mut Option<DeviceBuffer>,
    view: &MatRef<'_>,
) -> Result<(), Error> {
    let host = HostTensor::from_fn(view.dtype(), view.shape(), |i, j| view.get(i, j));
    let bytes = host.bytes();
    if buffer.as_ref().is_none_or(|old| old.bytes() != bytes.len()) {
        *buffer = Some(DeviceBuffer::zeros(device, bytes.len())?);
    }
    match buffer {
        Some(buffer) => buffer.write(stream, bytes),
        None => Ok(()),
    }
}

fn download(
    stream: u64,
    buffer: &Option<DeviceBuffer>,
    view: &mut MatMut<'_>,
) -> Result<(), Error> {
    let Some(buffer) = buffer else { return Ok(()) };
    let host = HostTensor::from_bytes(view.dtype(), view.shape(), buffer.read(stream)?);
    if let Some(host) = host {
        let host = host.view();
        for i in 0..view.rows() {
            for j in 0..view.cols() {
                view.set(i, j, host.get(i, j));
            }
        }
    }
    Ok(())
}

/// The device's copy of a tensor, to read.
fn device_view<'b>(
    buffer: &'b Option<DeviceBuffer>,
    like: &MatRef<'_>,
    ordinal: usize,
) -> MatRef<'b> {
    let at = buffer.as_ref().map_or(0, DeviceBuffer::at) as *const u8;
    let strides = [like.cols() as isize, 1];
    // SAFETY: `upload` made room for the tensor, row by row, and the memory belongs to this backend alone.
    unsafe {
        MatRef::from_raw(
            at,
            like.shape(),
            strides,
            like.dtype(),
            Location::Cuda(ordinal),
        )
    }
}

/// The device's copy of a tensor, to write.
fn device_view_mut<'b>(
    buffer: &'b Option<DeviceBuffer>,
    like: &MatMut<'_>,
    ordinal: usize,
) -> MatMut<'b> {
    let at = buffer.as_ref().map_or(0, DeviceBuffer::at) as *mut u8;
    let strides = [like.cols() as isize, 1];
    // SAFETY: as in `device_view`; a step borrows each copy once.
    unsafe {
        MatMut::from_raw(
            at,
            like.shape(),
            strides,
            like.dtype(),
            Location::Cuda(ordinal),
        )
    }
}

impl Backend for StagedCudaBackend {
    fn manifest(&self) -> Manifest {
        self.inner.manifest().location(Location::Host)
    }

    backend::forward_memory!(inner);

    fn step(
        &mut self,
        slots: Slots<'_>,
        mut io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        self.upload(&slots, &io, control.stream)?;
        let (copies, ordinal) = (&self.adapters, self.ordinal);
        let mut adapters: Vec<AdapterIo<'_>> = io
            .adapters
            .iter()
            .map(|adapter| {
                let [a, b, grad_a, grad_b, base] = &copies[adapter.id.index()];
                AdapterIo::new(
                    AdapterId::from_index(adapter.id.index()),
                    device_view_mut(a, &adapter.a, ordinal),
                    device_view_mut(b, &adapter.b, ordinal),
                    device_view(grad_a, &adapter.grad_a, ordinal),
                    device_view(grad_b, &adapter.grad_b, ordinal),
                )
                .w0((adapter.w0.as_ref().filter(|_| base.is_some()))
                    .map(|view| device_view_mut(base, view, ordinal)))
            })
            .collect();
        let copies = &self.params;
        let mut params: Vec<ParamIo<'_>> = io
            .params
            .iter()
            .map(|param| {
                let [value, grad] = &copies[param.id.index()];
                ParamIo::new(
                    ParamId::from_index(param.id.index()),
                    device_view_mut(value, &param.value, ordinal),
                    device_view(grad, &param.grad, ordinal),
                )
            })
            .collect();
        let on_device = StepIo {
            adapters: &mut adapters,
            params: &mut params,
        };
        let report = self.inner.step(slots, on_device, control)?;
        if report.skipped.is_none() {
            self.download(&mut io, control.stream)?;
        }
        Ok(report)
    }

    fn sync(&mut self, slots: Slots<'_>) -> Result<(), Error> {
        self.inner.sync(slots)
    }
}
