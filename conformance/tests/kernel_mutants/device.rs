//! Host tensors, stepped in the memory of a device in which they lie in many ways.

use std::sync::Arc;

use lora_pro_core::{
    AdapterId, Backend, Buffer, Control, Error, HostTensor, Manifest, MatMut, MatRef, Memory,
    PairIo, ParamId, ParamIo, Slots, StateTensor, StepIo, StepReport,
};
use lora_pro_cuda::device::Device;
use lora_pro_cuda::{CudaBackend, Options};

use lora_pro_conformance::layout::{LAYOUTS, Laid, Layout};

/// A tensor in device memory of its own, with canaries around and between its elements.
pub struct OnDevice {
    device: Arc<dyn Device>,
    at: u64,
    laid: Laid,
    like: HostTensor,
}

impl OnDevice {
    /// A copy of a host tensor.
    pub fn new(device: &Arc<dyn Device>, view: &MatRef<'_>, layout: Layout) -> Result<Self, Error> {
        let like = HostTensor::from_fn(view.dtype(), view.shape(), |i, j| view.get(i, j));
        let laid = Laid::new(&like, layout);
        let at = device.allocate(laid.bytes.len())?;
        // SAFETY: the memory was just allocated with as many bytes.
        unsafe { device.write(0, at, &laid.bytes)? };
        Ok(OnDevice {
            device: device.clone(),
            at,
            laid,
            like,
        })
    }

    fn origin(&self) -> *mut u8 {
        (self.at + self.laid.origin as u64) as *mut u8
    }

    /// To be read by a step.
    pub fn view(&self) -> MatRef<'_> {
        let (like, strides) = (self.like.view(), self.laid.strides);
        let memory = Memory::Cuda(self.device.about().ordinal);
        // SAFETY: all elements lie in the allocation, which lives as long as `self`.
        unsafe { MatRef::from_raw(self.origin(), like.shape(), strides, like.dtype(), memory) }
    }

    /// To be written by a step.
    pub fn view_mut(&mut self) -> MatMut<'_> {
        let (like, strides) = (self.like.view(), self.laid.strides);
        let memory = Memory::Cuda(self.device.about().ordinal);
        // SAFETY: as in `view`, borrowed mutably; the strides reach each element once.
        unsafe { MatMut::from_raw(self.origin(), like.shape(), strides, like.dtype(), memory) }
    }

    /// What is in it now.
    ///
    /// # Panics
    /// Where anything was written that is no element.
    pub fn tensor(&self) -> Result<HostTensor, Error> {
        let mut laid = self.laid.clone();
        // SAFETY: the allocation has as many bytes.
        unsafe { self.device.read(0, self.at, &mut laid.bytes)? };
        assert!(
            laid.canaries_live(),
            "something was written beside a tensor"
        );
        Ok(laid.tensor())
    }

    fn copy_back(&self, to: &mut MatMut<'_>) -> Result<(), Error> {
        let found = self.tensor()?;
        for i in 0..to.rows() {
            for j in 0..to.cols() {
                to.set(i, j, found.view().get(i, j));
            }
        }
        Ok(())
    }
}

impl Drop for OnDevice {
    fn drop(&mut self) {
        // SAFETY: the memory is its own, and every step is over.
        unsafe { self.device.free(self.at, self.laid.bytes.len()) };
    }
}

/// The CUDA backend on host tensors, which lie in device memory in layouts that take turns. Unlike
/// [`lora_pro_cuda::HostTensors`], it shows what a step has written that it then refused.
pub struct Scattered {
    inner: CudaBackend,
    layouts: Vec<Layout>,
    turn: usize,
}

struct Pair {
    id: AdapterId,
    written: [OnDevice; 2],
    read: [OnDevice; 2],
    base: Option<OnDevice>,
}

struct Param {
    id: ParamId,
    value: OnDevice,
    grad: OnDevice,
}

impl Scattered {
    /// All layouts that a device can have, from the `first` of them on.
    pub fn new(device: Arc<dyn Device>, options: Options, first: usize) -> Self {
        let layouts = LAYOUTS.into_iter().filter(|layout| !layout.is_misaligned());
        Scattered {
            inner: CudaBackend::on(device, options),
            layouts: layouts.collect(),
            turn: first,
        }
    }

    fn lay(&mut self, view: &MatRef<'_>) -> Result<OnDevice, Error> {
        let layout = self.layouts[self.turn % self.layouts.len()];
        self.turn += 1;
        OnDevice::new(self.inner.device(), view, layout)
    }

    fn lay_pair(&mut self, io: &PairIo<'_>) -> Result<Pair, Error> {
        let base = io.base.as_ref().map(|base| self.lay(&base.as_ref()));
        Ok(Pair {
            id: AdapterId(io.id.0),
            written: [self.lay(&io.a.as_ref())?, self.lay(&io.b.as_ref())?],
            read: [self.lay(&io.grad_a)?, self.lay(&io.grad_b)?],
            base: base.transpose()?,
        })
    }
}

impl Pair {
    fn io(&mut self) -> PairIo<'_> {
        let [a, b] = &mut self.written;
        PairIo {
            id: AdapterId(self.id.0),
            a: a.view_mut(),
            b: b.view_mut(),
            grad_a: self.read[0].view(),
            grad_b: self.read[1].view(),
            base: self.base.as_mut().map(OnDevice::view_mut),
        }
    }

    fn copy_back(&self, io: &mut PairIo<'_>) -> Result<(), Error> {
        self.written[0].copy_back(&mut io.a)?;
        self.written[1].copy_back(&mut io.b)?;
        if let (Some(from), Some(to)) = (&self.base, &mut io.base) {
            from.copy_back(to)?;
        }
        // Only their canaries, and that they are as they were.
        for gradient in &self.read {
            assert_eq!(gradient.tensor()?, gradient.like, "gradients are only read");
        }
        Ok(())
    }
}

impl Backend for Scattered {
    fn manifest(&self) -> Manifest {
        Manifest {
            memory: Memory::Host,
            ..self.inner.manifest()
        }
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
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        let pairs = io.pairs.iter().map(|pair| self.lay_pair(pair));
        let mut pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        let mut params = Vec::new();
        for param in io.params.iter() {
            params.push(Param {
                id: ParamId(param.id.0),
                value: self.lay(&param.value.as_ref())?,
                grad: self.lay(&param.grad)?,
            });
        }
        let mut pair_ios: Vec<_> = pairs.iter_mut().map(Pair::io).collect();
        let param_ios = params.iter_mut().map(|param| ParamIo {
            id: ParamId(param.id.0),
            value: param.value.view_mut(),
            grad: param.grad.view(),
        });
        let mut param_ios: Vec<_> = param_ios.collect();
        let on_device = StepIo {
            pairs: &mut pair_ios,
            params: &mut param_ios,
        };
        let report = self.inner.step(slots, on_device, control);
        for (pair, io) in pairs.iter().zip(io.pairs.iter_mut()) {
            pair.copy_back(io)?;
        }
        for (param, io) in params.iter().zip(io.params.iter_mut()) {
            param.value.copy_back(&mut io.value)?;
        }
        report
    }

    fn sync(&mut self, slots: Slots<'_>) -> Result<(), Error> {
        self.inner.sync(slots)
    }
}
