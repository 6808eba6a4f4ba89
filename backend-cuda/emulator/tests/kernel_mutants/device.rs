//! Host tensors, stepped in the memory of a device in which they lie in many ways.

use std::sync::Arc;

use lora_pro_core::backend::{self, Control, Slots, StepIo};
use lora_pro_core::{
    AdapterId, AdapterIo, Backend, Error, HostTensor, Location, Manifest, MatMut, MatRef, ParamId,
    ParamIo, StepReport,
};
use lora_pro_cuda::device::Device;
use lora_pro_cuda::{CudaBackend, Options};

use crate::common::device_view::DeviceView;
use crate::common::layout::{LAYOUTS, Layout};

/// The CUDA backend on host tensors, which lie in device memory in layouts that take turns. Unlike
/// [`lora_pro_cuda::StagedCudaBackend`], it shows what a step has written that it then refused.
pub struct Scattered {
    inner: CudaBackend,
    layouts: Vec<Layout>,
    turn: usize,
}

struct AdapterViews {
    id: AdapterId,
    written: [DeviceView; 2],
    read: [DeviceView; 2],
    base: Option<DeviceView>,
}

struct ParamViews {
    id: ParamId,
    value: DeviceView,
    grad: DeviceView,
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

    fn lay(&mut self, view: &MatRef<'_>) -> DeviceView {
        let layout = self.layouts[self.turn % self.layouts.len()];
        self.turn += 1;
        let host = HostTensor::from_fn(view.dtype(), view.shape(), |i, j| view.get(i, j));
        DeviceView::new(self.inner.device().clone(), &host, layout)
    }

    fn lay_adapter(&mut self, io: &AdapterIo<'_>) -> AdapterViews {
        AdapterViews {
            id: AdapterId::from_index(io.id.index()),
            written: [self.lay(&io.a.view()), self.lay(&io.b.view())],
            read: [self.lay(&io.grad_a), self.lay(&io.grad_b)],
            base: io.w0.as_ref().map(|base| self.lay(&base.view())),
        }
    }

    fn lay_param(&mut self, io: &ParamIo<'_>) -> ParamViews {
        ParamViews {
            id: ParamId::from_index(io.id.index()),
            value: self.lay(&io.value.view()),
            grad: self.lay(&io.grad),
        }
    }
}

/// What is in a tensor now; nothing was written around it.
fn copy_back(view: &DeviceView, to: &mut MatMut<'_>) {
    let laid = view.home();
    assert!(
        laid.guards_intact(),
        "something was written beside a tensor"
    );
    for i in 0..to.rows() {
        for j in 0..to.cols() {
            to.set(i, j, laid.view().get(i, j));
        }
    }
}

impl AdapterViews {
    fn io(&mut self) -> AdapterIo<'_> {
        let [a, b] = &mut self.written;
        AdapterIo::new(
            AdapterId::from_index(self.id.index()),
            a.view_mut(),
            b.view_mut(),
            self.read[0].view(),
            self.read[1].view(),
        )
        .w0(self.base.as_mut().map(DeviceView::view_mut))
    }

    fn copy_back(&self, io: &mut AdapterIo<'_>) {
        copy_back(&self.written[0], &mut io.a);
        copy_back(&self.written[1], &mut io.b);
        if let (Some(from), Some(to)) = (&self.base, &mut io.w0) {
            copy_back(from, to);
        }
        assert!(
            self.read.iter().all(DeviceView::is_untouched),
            "gradients are only read"
        );
    }
}

impl ParamViews {
    fn io(&mut self) -> ParamIo<'_> {
        ParamIo::new(
            ParamId::from_index(self.id.index()),
            self.value.view_mut(),
            self.grad.view(),
        )
    }

    fn copy_back(&self, io: &mut ParamIo<'_>) {
        copy_back(&self.value, &mut io.value);
        assert!(self.grad.is_untouched(), "gradients are only read");
    }
}

impl Backend for Scattered {
    fn manifest(&self) -> Manifest {
        self.inner.manifest().location(Location::Host)
    }

    backend::forward_memory!(inner);

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        let mut adapters: Vec<_> = io
            .adapters
            .iter()
            .map(|adapter| self.lay_adapter(adapter))
            .collect();
        let mut params: Vec<_> = io
            .params
            .iter()
            .map(|param| self.lay_param(param))
            .collect();
        let mut adapter_ios: Vec<_> = adapters.iter_mut().map(AdapterViews::io).collect();
        let mut param_ios: Vec<_> = params.iter_mut().map(ParamViews::io).collect();
        let on_device = StepIo {
            adapters: &mut adapter_ios,
            params: &mut param_ios,
        };
        let report = self.inner.step(slots, on_device, control);
        for (adapter, io) in adapters.iter().zip(io.adapters.iter_mut()) {
            adapter.copy_back(io);
        }
        for (param, io) in params.iter().zip(io.params.iter_mut()) {
            param.copy_back(io);
        }
        report
    }

    fn sync(&mut self, slots: Slots<'_>) -> Result<(), Error> {
        self.inner.sync(slots)
    }
}
