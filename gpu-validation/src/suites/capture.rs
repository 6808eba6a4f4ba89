//! A step as a graph, replayed with other gradients each time, gives the bits of steps one by one;
//! counters come home; a step is a few launches for any number of adapters.

use std::sync::Arc;

use lora_pro_bench::work::spec;
use lora_pro_conformance::laws::METHODS;
use lora_pro_conformance::support::batch::{Bits, differing, hyper};
use lora_pro_core::{AdapterSpec, DType, Error, Method};
use lora_pro_cuda::device::Device;

use crate::counted::{Counted, Counter};
use crate::ctx::Ctx;
use crate::model::DeviceModel;
use crate::progress::SuiteProgress;
use crate::result::SuiteResults;

/// Steps of a trajectory.
const STEPS: u64 = 6;

/// Of many sizes, so that each launch has blocks of all kinds.
const SHAPES: [[usize; 3]; 4] = [[65, 129, 5], [300, 200, 16], [3, 2, 1], [40, 500, 8]];

/// See the module's head.
///
/// # Errors
/// Those of the backend.
pub fn run(ctx: &Ctx, progress: &SuiteProgress, found: &mut SuiteResults) -> Result<(), Error> {
    let settings = [DType::F32, DType::Bf16].map(|dtype| METHODS.map(|method| (dtype, method)));
    let settings = settings.as_flattened();
    for (k, (dtype, method)) in settings.iter().enumerate() {
        progress.set(k, settings.len(), &format!("{method} {dtype}"));
        let one_by_one = run_of(ctx, *dtype, *method, false)?;
        let replayed = run_of(ctx, *dtype, *method, true)?;
        let names = differing(&replayed.bits, &one_by_one.bits);
        let counted = [&one_by_one, &replayed].map(|run| run.counters.clone());
        let counted = counted.iter().flatten().all(|steps| *steps == STEPS);
        let (nodes, launches) = (replayed.nodes, replayed.launches);
        let detail = format!(
            "{nodes} nodes for {} adapters, {launches} launches; counters {}; {} tensors differ {}",
            SHAPES.len(),
            if counted { "right" } else { "wrong" },
            names.len(),
            names.join(", ")
        );
        let holds = names.is_empty() && counted && nodes as u64 == launches;
        found.check(format!("{method} in {dtype}"), holds, detail.trim_end());
    }
    Ok(())
}

struct CaptureResult {
    bits: Bits,
    counters: Vec<u64>,
    /// Of the graph.
    nodes: usize,
    /// Of a step.
    launches: u64,
}

fn specs(dtype: DType) -> Vec<AdapterSpec> {
    let all = SHAPES.iter().enumerate();
    let specs = all.map(|(k, [m, n, r])| spec(format!("adapter {k}"), [*m, *n], *r).dtype(dtype));
    specs.collect()
}

fn run_of(ctx: &Ctx, dtype: DType, method: Method, captured: bool) -> Result<CaptureResult, Error> {
    let stream = ctx.gpu.stream()?;
    let counted = Arc::new(Counted::new(ctx.device.clone(), Counter::default()));
    let device: Arc<dyn Device> = counted.clone();
    let mut model = DeviceModel::new(&device, &specs(dtype), hyper(method), stream.raw)?;
    model.turn_gradients(1)?;
    model.step()?;
    let before = counted.hook().counts().all_launches();
    let graph = match captured {
        true => Some(model.capture(ctx.gpu.as_ref())?),
        false => None,
    };
    let launches = counted.hook().counts().all_launches() - before;
    for t in 2..=STEPS {
        model.turn_gradients(t)?;
        match &graph {
            Some(graph) => model.replay(graph.as_ref())?,
            None => model.step().map(drop)?,
        }
    }
    model.sync()?;
    Ok(CaptureResult {
        bits: model.bits()?,
        counters: model.counters(),
        nodes: graph.map_or(0, |graph| graph.nodes()),
        launches,
    })
}
