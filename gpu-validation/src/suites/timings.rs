//! How long a step takes, by the device's clock: launched kernel by kernel, never waited for, and
//! replayed as a graph; beside how fast the device copies.

use std::sync::Arc;

use lora_pro_bench::rows::Work;
use lora_pro_bench::stats::Samples;
use lora_pro_bench::work::Job;
use lora_pro_core::{DType, Error, Method, MomentDType};
use lora_pro_cuda::DeviceBuffer;
use lora_pro_cuda::device::Device;

use crate::counted::{Counted, Counter};
use crate::ctx::Ctx;
use crate::model::DeviceModel;
use crate::progress::SuiteProgress;
use crate::result::{SuiteResults, Timing};

/// The whole model.
pub const LLAMA: &str = "llama-2-7b";
/// One weight.
pub const SQUARE: &str = "square-4096";

/// Steps in a sample at most: more than this shows nothing more.
const MOST_STEPS: f64 = 50.0;

/// See the module's head.
///
/// # Errors
/// Those of the backend; that there is not enough memory for a model is a result.
pub fn run(ctx: &Ctx, progress: &SuiteProgress, found: &mut SuiteResults) -> Result<(), Error> {
    found.copy_rate = Some(copy_rate(ctx)?);
    let all = all();
    for (k, (work, dtype)) in all.iter().enumerate() {
        let Work {
            model,
            method,
            rank,
            moments,
            ..
        } = work;
        progress.set(
            k,
            all.len(),
            &format!("{model} {method} {moments} r = {rank} {dtype}"),
        );
        found.timings.push(time(ctx, work, *dtype)?);
    }
    Ok(())
}

/// Everything that is timed.
fn all() -> Vec<(Work, DType)> {
    let work = |model: &str, method, moments, rank| Work {
        model: model.into(),
        method,
        rank,
        moments,
        threads: None,
    };
    const MOMENTS: [MomentDType; 3] = [MomentDType::F32, MomentDType::Bf16, MomentDType::EightBit];
    let mut all = Vec::new();
    for rank in [8, 16, 32] {
        for moments in MOMENTS {
            all.push((work(SQUARE, Method::Full, moments, rank), DType::F32));
        }
    }
    let thin = [
        Method::Efficient,
        Method::Factored,
        Method::Lora,
        Method::Sgd,
    ];
    for dtype in [DType::F32, DType::Bf16] {
        for rank in [8, 16, 32, 64] {
            let thin = thin.map(|method| work(LLAMA, method, MomentDType::F32, rank));
            let full = MOMENTS.map(|moments| work(LLAMA, Method::Full, moments, rank));
            all.extend(thin.into_iter().chain(full).map(|work| (work, dtype)));
        }
    }
    all
}

/// Bytes in a millisecond, those that are read and those that are written.
fn copy_rate(ctx: &Ctx) -> Result<Samples, Error> {
    let device = ctx.device.clone();
    let (bytes, stream) = (ctx.effort.copied, ctx.gpu.stream()?);
    let [from, to] = [
        DeviceBuffer::zeros(&device, bytes)?,
        DeviceBuffer::zeros(&device, bytes)?,
    ];
    let mut copy = || {
        // SAFETY: two blocks of as many bytes.
        unsafe { device.copy(stream.raw, from.at(), to.at(), bytes) }
    };
    ctx.gpu.time(stream.raw, &mut copy)?;
    let rate = |_| {
        let elapsed = ctx.gpu.time(stream.raw, &mut copy)?;
        Ok(2.0 * bytes as f64 / elapsed.milliseconds)
    };
    let rates: Result<Vec<f64>, Error> = (0..ctx.effort.samples).map(rate).collect();
    Ok(Samples::of(rates?))
}

/// One model, of which there may be more than fits.
fn time(ctx: &Ctx, work: &Work, dtype: DType) -> Result<Timing, Error> {
    let mut job = Job::new(work, ctx.effort.divisor, 1)?;
    for spec in &mut job.specs {
        spec.dtype = dtype;
    }
    let mut timing = Timing {
        model: work.model.clone(),
        method: work.method,
        moments: (work.method == Method::Full).then_some(work.moments),
        rank: work.rank,
        dtype,
        adapters: job.specs.len(),
        bytes: job.cost().traffic(),
        launches: 0,
        step_ms: None,
        graph_ms: None,
        by_device: true,
        problem: None,
    };
    match measure(ctx, &job, &mut timing) {
        Err(Error::OutOfMemory { reason, .. }) => {
            timing.problem = Some(reason);
        }
        outcome => outcome?,
    }
    Ok(timing)
}

fn measure(ctx: &Ctx, job: &Job, timing: &mut Timing) -> Result<(), Error> {
    let counted = Arc::new(Counted::new(ctx.device.clone(), Counter::default()));
    let device: Arc<dyn Device> = counted.clone();
    let stream = ctx.gpu.stream()?;
    let mut model = DeviceModel::new(&device, &job.specs, job.hyper, stream.raw)?;
    // The first step describes the model to the device.
    model.step()?;
    model.sync()?;
    let before = counted.hook().counts().all_launches();
    model.step()?;
    timing.launches = counted.hook().counts().all_launches() - before;
    let mut clock = Clock {
        ctx,
        stream: stream.raw,
        by_device: true,
    };
    timing.step_ms = Some(clock.samples(&mut || model.step().map(drop))?);
    let graph = model.capture(ctx.gpu.as_ref())?;
    timing.graph_ms = Some(clock.samples(&mut || model.replay(graph.as_ref()))?);
    timing.by_device = clock.by_device;
    model.sync()
}

/// Takes times on a stream.
struct Clock<'b> {
    ctx: &'b Ctx,
    stream: u64,
    by_device: bool,
}

impl Clock<'_> {
    /// Milliseconds of one `work`, of which many are in a sample where it is short.
    fn samples(&mut self, work: &mut dyn FnMut() -> Result<(), Error>) -> Result<Samples, Error> {
        let effort = &self.ctx.effort;
        self.once(1, work)?;
        let first = self.once(1, work)?;
        let count = (effort.sample_ms / first).ceil().min(MOST_STEPS);
        // Once where the clock saw nothing.
        let count = (count as usize).max(1);
        let all = (0..effort.samples).map(|_| self.once(count, work));
        Ok(Samples::of(all.collect::<Result<_, _>>()?))
    }

    fn once(
        &mut self,
        count: usize,
        work: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<f64, Error> {
        let mut all = || (0..count).try_for_each(|_| work());
        let elapsed = self.ctx.gpu.time(self.stream, &mut all)?;
        self.by_device &= elapsed.by_device;
        Ok(elapsed.milliseconds / count as f64)
    }
}
