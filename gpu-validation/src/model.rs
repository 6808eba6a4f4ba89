//! Adapters whose tensors are in device memory, and what steps them.

use std::sync::Arc;

use bytemuck::cast_slice;
use lora_pro_bench::fill;
use lora_pro_conformance::support::batch::Bits;
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Config, DType, Error, HostTensor, Location, MatMut, MatRef,
    Optimizer, StepReport, TensorFile,
};
use lora_pro_cuda::device::Device;
use lora_pro_cuda::{CudaBackend, DeviceBuffer, Options};

use crate::gpu::{Gpu, Replay};

/// A, B, gA, gB of one adapter.
struct AdapterTensors {
    blocks: [DeviceBuffer; 4],
    shapes: [[usize; 2]; 2],
    dtype: DType,
}

/// A model on a device, never waited for within a step.
pub struct DeviceModel {
    optimizer: Optimizer,
    adapters: Vec<AdapterTensors>,
    ordinal: usize,
    stream: u64,
}

impl DeviceModel {
    /// A as LoRA starts it, B small but not zero, gradients of no direction.
    ///
    /// # Errors
    /// Where memory is short, and what the configuration is refused for.
    pub fn new(
        device: &Arc<dyn Device>,
        specs: &[AdapterSpec],
        config: impl Into<Config>,
        stream: u64,
    ) -> Result<Self, Error> {
        let backend = CudaBackend::on(device.clone(), Options { deferred: true });
        let mut optimizer = Optimizer::new(Box::new(backend), config.into())?;
        optimizer.set_stream(stream);
        let mut adapters = Vec::new();
        for (k, spec) in specs.iter().enumerate() {
            optimizer.add_adapter(spec.clone())?;
            adapters.push(AdapterTensors::new(device, stream, k, spec)?);
        }
        Ok(DeviceModel {
            optimizer,
            adapters,
            ordinal: device.info().ordinal,
            stream,
        })
    }

    /// Puts a step into the stream.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn step(&mut self) -> Result<StepReport, Error> {
        let ordinal = self.ordinal;
        let adapters = self.adapters.iter_mut().enumerate();
        let mut adapters: Vec<AdapterIo<'_>> = adapters.map(|(k, x)| x.io(k, ordinal)).collect();
        self.optimizer.step(&mut adapters)
    }

    /// A step as a graph. One step must have been made before.
    ///
    /// # Errors
    /// Those of the backend, and where something cannot be recorded.
    pub fn capture(&mut self, gpu: &dyn Gpu) -> Result<Box<dyn Replay>, Error> {
        gpu.begin_capture(self.stream)?;
        let step = self.step();
        // In any case: a stream that is being captured is good for nothing else.
        let graph = gpu.end_capture(self.stream);
        step?;
        graph
    }

    /// Replays a graph of this model.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver refuses.
    pub fn replay(&mut self, graph: &dyn Replay) -> Result<(), Error> {
        // SAFETY: the model keeps all memory of its steps where it is; graphs are used here while
        // their device is.
        unsafe { graph.launch(self.stream) }
    }

    /// Waits, and brings counters home.
    ///
    /// # Errors
    /// What went wrong in a step since the last time.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.optimizer.sync()
    }

    /// Other gradients for adapter k, in the same memory.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver refuses.
    pub fn set_gradients(&mut self, k: usize, grad_a: &[u8], grad_b: &[u8]) -> Result<(), Error> {
        let [_, _, a, b] = &self.adapters[k].blocks;
        a.write(self.stream, grad_a)?;
        b.write(self.stream, grad_b)
    }

    /// Other gradients for all adapters: those of step t.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver refuses.
    pub fn turn_gradients(&mut self, t: u64) -> Result<(), Error> {
        for k in 0..self.adapters.len() {
            let AdapterTensors { shapes, dtype, .. } = &self.adapters[k];
            let seed = ((k as u64) << 32) | (2 * t);
            let [a, b] = [0, 1].map(|side| random(*dtype, shapes[side], 1e-3, seed + side as u64));
            self.set_gradients(k, &a, &b)?;
        }
        Ok(())
    }

    /// A and B of adapter k as they are now.
    ///
    /// # Errors
    /// What went wrong in a step before.
    pub fn factors(&self, k: usize) -> Result<[HostTensor; 2], Error> {
        let AdapterTensors {
            blocks,
            shapes,
            dtype,
        } = &self.adapters[k];
        let read = |side: usize| {
            let bytes = blocks[side].read(self.stream)?;
            let tensor = HostTensor::from_bytes(*dtype, shapes[side], bytes);
            tensor.ok_or_else(|| Error::file("device memory", "a tensor of another size"))
        };
        Ok([read(0)?, read(1)?])
    }

    /// Puts A and B of adapter k into device memory.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver refuses.
    pub fn set_factors(&mut self, k: usize, a: &HostTensor, b: &HostTensor) -> Result<(), Error> {
        let [to_a, to_b, _, _] = &self.adapters[k].blocks;
        to_a.write(self.stream, a.bytes())?;
        to_b.write(self.stream, b.bytes())
    }

    /// Factors, state and counters, after a [`DeviceModel::sync`].
    ///
    /// # Errors
    /// Those of the backend.
    pub fn bits(&mut self) -> Result<Bits, Error> {
        let mut file = TensorFile::new();
        self.optimizer.save_to(&mut file)?;
        let saved = file.tensors.into_iter();
        let mut bits: Bits = saved.map(|(name, data)| (name, data.bytes)).collect();
        for (k, slot) in self.optimizer.adapters().iter().enumerate() {
            let (name, [a, b]) = (&slot.spec.name, self.factors(k)?);
            bits.insert(format!("{name}.A"), a.bytes().to_vec());
            bits.insert(format!("{name}.B"), b.bytes().to_vec());
            let step = slot.state.step.to_le_bytes();
            bits.insert(format!("{name}.step"), step.to_vec());
        }
        Ok(bits)
    }

    /// Steps that each adapter has taken, after a [`DeviceModel::sync`].
    pub fn counters(&self) -> Vec<u64> {
        let slots = self.optimizer.adapters().iter();
        slots.map(|slot| slot.state.step).collect()
    }
}

impl AdapterTensors {
    fn new(
        device: &Arc<dyn Device>,
        stream: u64,
        k: usize,
        spec: &AdapterSpec,
    ) -> Result<Self, Error> {
        let shapes = [spec.a_shape(), spec.b_shape()];
        let sizes = [1.0 / (spec.n as f32).sqrt(), 0.01, 1e-3, 1e-3];
        let block = |which: usize| {
            let seed = 4 * k as u64 + which as u64;
            let bytes = random(spec.dtype, shapes[which % 2], sizes[which], seed);
            let block = DeviceBuffer::zeros(device, bytes.len())?;
            block.write(stream, &bytes)?;
            Ok(block)
        };
        Ok(AdapterTensors {
            blocks: [block(0)?, block(1)?, block(2)?, block(3)?],
            shapes,
            dtype: spec.dtype,
        })
    }

    fn io(&mut self, k: usize, ordinal: usize) -> AdapterIo<'_> {
        let [a, b, grad_a, grad_b] = &self.blocks;
        let ([a_shape, b_shape], dtype) = (self.shapes, self.dtype);
        let rows = |shape: [usize; 2]| [shape[1] as isize, 1];
        let memory = Location::Cuda(ordinal);
        let to_read = |block: &DeviceBuffer, shape| {
            // SAFETY: the block holds a tensor of this shape and type, row by row, and lives as long
            // as `self` is borrowed; it is used in the order of the stream.
            unsafe { MatRef::from_raw(block.at() as *const u8, shape, rows(shape), dtype, memory) }
        };
        let to_write = |block: &DeviceBuffer, shape| {
            // SAFETY: the same; `self` is borrowed mutably.
            unsafe { MatMut::from_raw(block.at() as *mut u8, shape, rows(shape), dtype, memory) }
        };
        AdapterIo::new(
            AdapterId::from_index(k),
            to_write(a, a_shape),
            to_write(b, b_shape),
            to_read(grad_a, a_shape),
            to_read(grad_b, b_shape),
        )
    }
}

/// The bytes of numbers between -size and size. The common types are quick: there are hundreds of
/// millions of numbers.
fn random(dtype: DType, [rows, cols]: [usize; 2], size: f32, seed: u64) -> Vec<u8> {
    let numbers = fill::numbers(rows * cols, size, seed);
    match dtype {
        DType::F32 => cast_slice(&numbers).to_vec(),
        // The upper half of f32: what is cut off does not matter to random numbers.
        DType::Bf16 => {
            let halves = numbers.iter().map(|x| (x.to_bits() >> 16) as u16);
            halves.flat_map(u16::to_le_bytes).collect()
        }
        _ => {
            let at = |i: usize, j: usize| f64::from(numbers[i * cols + j]);
            HostTensor::from_fn(dtype, [rows, cols], at)
                .bytes()
                .to_vec()
        }
    }
}
