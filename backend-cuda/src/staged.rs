//! Tensors on the host, stepped on a device: copied over before each step and back after it.
//!
//! For programs whose model is on the host, and for tests. A model on the device is stepped where it
//! is by [`CudaBackend`].

use std::sync::Arc;

use lora_pro_core::backend::{Buffer, Control, Slots, StateTensor, StepIo};
use lora_pro_core::{
    AdapterId, AdapterIo, Backend, Error, HostTensor, Location, Manifest, MatMut, MatRef, ParamId,
    ParamIo, StepReport,
};

use crate::backend::{CudaBackend, Options};
use crate::device::Device;
use crate::memory::Block;

/// The CUDA backend for host tensors.
pub struct HostTensors {
    inner: CudaBackend,
    device: Arc<dyn Device>,
    ordinal: usize,
    /// Device copies by adapter: A, B, gA, gB, W0; by parameter: value, gradient.
    adapters: Vec<[Option<Block>; 5]>,
    params: Vec<[Option<Block>; 2]>,
}

impl HostTensors {
    /// On the GPU with this number.
    ///
    /// # Errors
    /// As [`crate::Driver::new`].
    pub fn new(ordinal: usize) -> Result<Self, Error> {
        Ok(Self::of(CudaBackend::new(ordinal)?))
    }

    /// On any device: for the test device.
    pub fn on(device: Arc<dyn Device>) -> Self {
        Self::of(CudaBackend::on(device, Options::default()))
    }

    fn of(inner: CudaBackend) -> Self {
        let device = inner.device().clone();
        HostTensors {
            ordinal: device.about().ordinal,
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
        for pair in io.adapters.iter() {
            let [a, b, grad_a, grad_b, base] = &mut self.adapters[pair.id.index()];
            upload(device, stream, a, &pair.a.view())?;
            upload(device, stream, b, &pair.b.view())?;
            upload(device, stream, grad_a, &pair.grad_a)?;
            upload(device, stream, grad_b, &pair.grad_b)?;
            let wanted = slots.adapters[pair.id.index()].hyper.decay_base;
            if let Some(view) = pair.w0.as_ref().filter(|_| wanted) {
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
        for pair in io.adapters.iter_mut() {
            let [a, b, _, _, base] = &self.adapters[pair.id.index()];
            download(stream, a, &mut pair.a)?;
            download(stream, b, &mut pair.b)?;
            if let (Some(view), Some(_)) = (&mut pair.w0, base) {
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
    block: &mut Option<Block>,
    view: &MatRef<'_>,
) -> Result<(), Error> {
    let host = HostTensor::from_fn(view.dtype(), view.shape(), |i, j| view.get(i, j));
    let bytes = host.bytes();
    if block
        .as_ref()
        .is_none_or(|block| block.bytes() != bytes.len())
    {
        *block = Some(Block::zeros(device, bytes.len())?);
    }
    match block {
        Some(block) => block.write(stream, bytes),
        None => Ok(()),
    }
}

fn download(stream: u64, block: &Option<Block>, view: &mut MatMut<'_>) -> Result<(), Error> {
    let Some(block) = block else { return Ok(()) };
    let host = HostTensor::from_bytes(view.dtype(), view.shape(), block.read(stream)?);
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
fn lent<'b>(block: &'b Option<Block>, like: &MatRef<'_>, ordinal: usize) -> MatRef<'b> {
    let at = block.as_ref().map_or(0, Block::at) as *const u8;
    let strides = [like.cols() as isize, 1];
    // SAFETY: `upload` made room for the tensor, row by row, and nobody else knows of the memory.
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
fn lent_mut<'b>(block: &'b Option<Block>, like: &MatMut<'_>, ordinal: usize) -> MatMut<'b> {
    let at = block.as_ref().map_or(0, Block::at) as *mut u8;
    let strides = [like.cols() as isize, 1];
    // SAFETY: as in `lent`; a step lends each copy once.
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

impl Backend for HostTensors {
    fn manifest(&self) -> Manifest {
        self.inner.manifest().location(Location::Host)
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        self.inner.allocate(tensor)
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        self.inner.download(tensor, buffer)
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.inner.upload(tensor, buffer, bytes)
    }

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
            .map(|pair| {
                let [a, b, grad_a, grad_b, base] = &copies[pair.id.index()];
                AdapterIo::new(
                    AdapterId::from_index(pair.id.index()),
                    lent_mut(a, &pair.a, ordinal),
                    lent_mut(b, &pair.b, ordinal),
                    lent(grad_a, &pair.grad_a, ordinal),
                    lent(grad_b, &pair.grad_b, ordinal),
                )
                .w0((pair.w0.as_ref().filter(|_| base.is_some()))
                    .map(|view| lent_mut(base, view, ordinal)))
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
                    lent_mut(value, &param.value, ordinal),
                    lent(grad, &param.grad, ordinal),
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
