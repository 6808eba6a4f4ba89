//! Streams and memory of the caller's: tensors with any strides, from any element on; nothing is written
//! beside their elements, nothing to what is only read, and the bits are always the same.

use std::sync::Arc;

use lora_pro_conformance::batch::{adapter, hyper};
use lora_pro_conformance::laws::METHODS;
use lora_pro_conformance::layout::{LAYOUTS, Laid, Layout};
use lora_pro_conformance::sample::{CaseSpec, uniform};
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, DType, Error, HostTensor, Location, MatMut, MatRef, Method,
    Optimizer, ParamId, ParamIo, ParamSpec, Scale,
};
use lora_pro_cuda::device::Device;
use lora_pro_cuda::{Block, CudaBackend, Options};
use lora_pro_reference::storage::host;

use super::Bench;
use crate::progress::Progress;
use crate::result::Found;

/// Steps of a trajectory.
const STEPS: u64 = 3;

/// Around the sizes of tiles and vectors.
const SHAPES: [[usize; 3]; 3] = [[7, 65, 3], [1, 130, 1], [90, 70, 4]];

/// See the module's head.
///
/// # Errors
/// Those of the backend.
pub fn run(bench: &Bench, progress: &Progress, found: &mut Found) -> Result<(), Error> {
    let stream = bench.gpu.stream()?;
    let device: Arc<dyn Device> = bench.gpu.clone();
    for (k, [m, n, r]) in SHAPES.into_iter().enumerate() {
        progress.set(k, SHAPES.len(), &format!("{m} x {n}, r = {r}"));
        for dtype in DType::PARAMETERS {
            let wrong = METHODS.map(|method| {
                let spec = adapter(m, n, r, dtype);
                every_layout(&device, stream.raw, &spec, method)
            });
            let wrong: Result<Vec<_>, _> = wrong.into_iter().collect();
            let wrong = wrong?.concat();
            let count = METHODS.len() * (aligned().len() + 1);
            found.check(
                format!("{m} x {n}, r = {r}, {dtype}, on a stream that waits for no other"),
                wrong.is_empty(),
                format!("{count} layouts and methods {}", wrong.join("; ")).trim_end(),
            );
        }
    }
    Ok(())
}

/// Layouts that a GPU can read.
fn aligned() -> Vec<Layout> {
    let aligned = LAYOUTS.into_iter().filter(|layout| !layout.is_misaligned());
    aligned.collect()
}

/// Compares with rows on the default stream.
fn every_layout(
    device: &Arc<dyn Device>,
    stream: u64,
    spec: &CaseSpec,
    method: Method,
) -> Result<Vec<String>, Error> {
    let run =
        |stream, layouts: &[Layout]| Trajectory::new(device, stream, layouts).run(spec, method);
    let expected = run(0, &[Layout::Rows])?;
    let mut wrong = Vec::new();
    if run(stream, &[Layout::Unaligned]).is_ok() {
        wrong.push(format!(
            "{method}: elements at odd addresses are not refused"
        ));
    }
    let all = aligned();
    let together = all.iter().map(|layout| vec![*layout]);
    for layouts in together.chain([all.clone()]) {
        let found = run(stream, &layouts)?;
        let what = match &found {
            _ if found == expected && found.unharmed => continue,
            _ if found.unharmed => "other bits",
            _ => "memory beside the elements",
        };
        wrong.push(format!("{method} {layouts:?}: {what}"));
    }
    Ok(wrong)
}

#[derive(PartialEq)]
struct Outcome {
    tensors: Vec<HostTensor>,
    /// Nothing was written where nothing was to be.
    unharmed: bool,
}

/// A tensor on the device, with what lies around it.
struct OnDevice {
    laid: Laid,
    block: Block,
}

struct Trajectory<'t> {
    device: &'t Arc<dyn Device>,
    stream: u64,
    layouts: std::iter::Cycle<std::slice::Iter<'t, Layout>>,
}

impl<'t> Trajectory<'t> {
    fn new(device: &'t Arc<dyn Device>, stream: u64, layouts: &'t [Layout]) -> Self {
        Trajectory {
            device,
            stream,
            layouts: layouts.iter().cycle(),
        }
    }

    fn lay(&mut self, tensor: HostTensor) -> Result<OnDevice, Error> {
        let layout = self.layouts.next().copied().unwrap_or(Layout::Rows);
        let laid = Laid::new(&tensor, layout);
        let block = Block::zeros(self.device, laid.bytes.len())?;
        block.write(self.stream, &laid.bytes)?;
        Ok(OnDevice { laid, block })
    }

    /// A, B, W0 and the parameter at the end.
    fn run(mut self, spec: &CaseSpec, method: Method) -> Result<Outcome, Error> {
        let hyper = hyper(method).decay_base(true);
        let backend = CudaBackend::on(self.device.clone(), Options::default());
        let mut optimizer = Optimizer::new(Box::new(backend), hyper.into())?;
        optimizer.set_stream(self.stream);
        register(&mut optimizer, spec)?;
        let (start, mut random) = (spec.factors(), spec.random(100));
        let mut number = |rows, cols| host(&uniform(&mut random, rows, cols), spec.dtype);
        let mut written = [
            self.lay(host(&start.a, spec.dtype))?,
            self.lay(host(&start.b, spec.dtype))?,
            self.lay(number(spec.m, spec.n))?,
            self.lay(number(spec.n, spec.r))?,
        ];
        let mut unharmed = true;
        for _ in 0..STEPS {
            let mut read = [
                self.lay(number(spec.r, spec.n))?,
                self.lay(number(spec.m, spec.r))?,
                self.lay(number(spec.n, spec.r))?,
            ];
            self.step(&mut optimizer, &mut written, &read)?;
            for tensor in &mut read {
                let before = tensor.laid.clone();
                tensor.fetch(self.stream)?;
                unharmed &= tensor.laid == before;
            }
        }
        for tensor in &mut written {
            tensor.fetch(self.stream)?;
            unharmed &= tensor.laid.canaries_live();
        }
        Ok(Outcome {
            tensors: written.iter().map(|tensor| tensor.laid.tensor()).collect(),
            unharmed,
        })
    }

    fn step(
        &self,
        optimizer: &mut Optimizer,
        written: &mut [OnDevice; 4],
        read: &[OnDevice; 3],
    ) -> Result<(), Error> {
        let ordinal = self.device.about().ordinal;
        let [a, b, base, value] = written.each_mut().map(|tensor| tensor.view_mut(ordinal));
        let [grad_a, grad_b, grad] = read.each_ref().map(|tensor| tensor.view(ordinal));
        let pair = AdapterIo::new(AdapterId::from_index(0), a, b, grad_a, grad_b).w0(Some(base));
        let param = ParamIo::new(ParamId::from_index(0), value, grad);
        optimizer.step_with_params(&mut [pair], &mut [param])?;
        Ok(())
    }
}

impl OnDevice {
    fn view(&self, ordinal: usize) -> MatRef<'_> {
        let at = self.block.at() as usize + self.laid.origin;
        let (strides, memory) = (self.laid.strides, Location::Cuda(ordinal));
        let (shape, dtype) = (self.laid.shape, self.laid.dtype);
        // SAFETY: the block is a copy of the bytes of `laid`, in which all elements lie; it is used in
        // the order of the stream.
        unsafe { MatRef::from_raw(at as *const u8, shape, strides, dtype, memory) }
    }

    fn view_mut(&mut self, ordinal: usize) -> MatMut<'_> {
        let at = self.block.at() as usize + self.laid.origin;
        let (strides, memory) = (self.laid.strides, Location::Cuda(ordinal));
        let (shape, dtype) = (self.laid.shape, self.laid.dtype);
        // SAFETY: as in `view`, borrowed mutably; a layout reaches each element once.
        unsafe { MatMut::from_raw(at as *mut u8, shape, strides, dtype, memory) }
    }

    /// Brings home what became of the bytes.
    fn fetch(&mut self, stream: u64) -> Result<(), Error> {
        self.laid.bytes = self.block.read(stream)?;
        Ok(())
    }
}

fn register(optimizer: &mut Optimizer, spec: &CaseSpec) -> Result<(), Error> {
    optimizer.add_adapter(
        AdapterSpec::new("adapter", spec.m, spec.n, spec.r)
            .scale(Scale::Explicit(spec.s))
            .dtype(spec.dtype),
    )?;
    optimizer.add_param(ParamSpec::new("parameter", spec.n, spec.r).dtype(spec.dtype))?;
    Ok(())
}
