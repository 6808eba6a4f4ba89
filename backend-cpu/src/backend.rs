//! Core's contract: one call steps a whole model.
//!
//! A step has three rounds over all adapters and parameters: Gram pass, solve, commit. The first two
//! read the caller's tensors through [`AdapterRefs`] and write none; only the third has
//! [`AdapterViews`], which can.

use lora_pro_core::backend::{
    AdapterSlot, Buffer, Control, ParamSlot, Slots, StateTensor, StepIo, foreign_buffer,
};
use lora_pro_core::{AdapterReport, Backend, DType, Error, Manifest, Rounding, StepReport};

use crate::NAME;
use crate::adapter::{self, AdapterRefs, AdapterViews, AdapterWork, StepFactors};
use crate::decay;
use crate::options::CpuOptions;
use crate::parallel::{ParallelCtx, parallel_for, splittable};
use crate::param::{self, ParamRefs, ParamViews, ParamWork};
use crate::partition::partition;
use crate::rejection::first_rejection;
use crate::simd_level::SimdLevel;
use crate::snapshot::{NamedValues, Snapshot};
use crate::state::StateMemory;
use crate::threads::Threads;
use crate::typed_state::MomentElement;
use crate::workspace::Workspaces;

/// LoRA-Pro on the CPU. See the crate's page for how it is built.
pub struct CpuBackend {
    engine: Engine,
    poison: bool,
    /// By the number of the adapter or parameter.
    adapters: Vec<AdapterWork>,
    params: Vec<ParamWork>,
    /// Empty between steps: memory for the views of a step.
    refs: Views<AdapterRefs<'static>, ParamRefs<'static>>,
    views: Views<AdapterViews<'static>, ParamViews<'static>>,
}

impl std::fmt::Debug for CpuBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuBackend")
            .field("simd_level", &self.engine.level)
            .field("threads", &self.engine.threads.count)
            .finish_non_exhaustive()
    }
}

/// What computes: shared by all threads of a step.
struct Engine {
    level: SimdLevel,
    threads: Threads,
    f32s: Workspaces<f32>,
    f64s: Workspaces<f64>,
}

impl CpuBackend {
    /// On the fastest instruction set of the machine, in the caller's rayon pool or the global one.
    pub fn new() -> Self {
        Self::on(SimdLevel::available()[0], Threads::ambient(), false)
    }

    /// With options.
    ///
    /// # Errors
    /// [`Error::Backend`] for an instruction set that the machine lacks or threads that cannot be
    /// had, [`Error::Invalid`] for no threads.
    pub fn with(options: CpuOptions) -> Result<Self, Error> {
        let level = SimdLevel::choose(options.simd_level)?;
        let threads = options
            .threads
            .map_or_else(|| Ok(Threads::ambient()), Threads::of)?;
        Ok(Self::on(level, threads, options.poison))
    }

    fn on(level: SimdLevel, threads: Threads, poison: bool) -> Self {
        let (f32s, f64s) = (
            Workspaces::new(threads.count),
            Workspaces::new(threads.count),
        );
        let engine = Engine {
            level,
            threads,
            f32s,
            f64s,
        };
        CpuBackend {
            engine,
            poison,
            adapters: Vec::new(),
            params: Vec::new(),
            refs: Views::default(),
            views: Views::default(),
        }
    }

    /// Notes what is stepped, and rejects state that does not fit.
    fn begin(&mut self, slots: &mut Slots<'_>, io: &StepIo<'_, '_>) -> Result<(), Error> {
        self.adapters
            .resize_with(slots.adapters.len(), AdapterWork::default);
        self.params
            .resize_with(slots.params.len(), ParamWork::default);
        for work in &mut self.adapters {
            (work.listed, work.done) = (false, false);
        }
        for work in &mut self.params {
            (work.listed, work.done) = (false, false);
        }
        for io in io.adapters.iter() {
            adapter::check_state(&mut slots.adapters[io.id.index()])?;
            self.adapters[io.id.index()].listed = true;
        }
        for io in io.params.iter() {
            param::check_state(&mut slots.params[io.id.index()])?;
            self.params[io.id.index()].listed = true;
        }
        if self.poison {
            self.engine.f32s.poison();
            self.engine.f64s.poison();
            self.adapters.iter_mut().for_each(AdapterWork::poison);
        }
        Ok(())
    }

    /// The global norm of all gradients, added up in the order of registration.
    fn gradient_norm(&self, scale: f64) -> f64 {
        let adapters = self.adapters.iter().filter(|work| work.listed);
        let adapters = adapters.flat_map(AdapterWork::gradient_squares);
        let params = self.params.iter().filter(|work| work.listed);
        let params = params.map(ParamWork::gradient_square);
        adapters.chain(params).sum::<f64>().sqrt() * scale
    }
}

impl Default for CpuBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for CpuBackend {
    fn manifest(&self) -> Manifest {
        Manifest::new(NAME, env!("CARGO_PKG_VERSION"))
            .state_dtypes([DType::F64, DType::F32, DType::Bf16, DType::U8])
            .roundings([
                Rounding::Nearest,
                Rounding::Stochastic,
                Rounding::MasterCopy,
            ])
            .code_path(self.engine.level.to_string())
            .threads(self.engine.threads.count)
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        Ok(Buffer::new(StateMemory::zeros(tensor)?))
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        let memory = buffer.get::<StateMemory>();
        Ok(memory
            .ok_or_else(|| foreign_buffer(NAME, tensor.kind))?
            .bytes(tensor))
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let memory = buffer.get_mut::<StateMemory>();
        let memory = memory.ok_or_else(|| foreign_buffer(NAME, tensor.kind))?;
        *memory = StateMemory::from_bytes(tensor, bytes)?;
        Ok(())
    }

    fn step(
        &mut self,
        mut slots: Slots<'_>,
        mut io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        self.begin(&mut slots, &io)?;
        let threads = self.engine.threads.count;
        let (parallelism, large) = partition(threads, &slots, &mut self.adapters, &mut self.params);
        let mut refs = std::mem::take(&mut self.refs);
        let read = self.read(&mut slots, &io, &mut refs, control, large);
        self.refs = refs.recycled();
        let mut report = read?;
        if report.skipped.is_none() {
            let mut views = std::mem::take(&mut self.views);
            let factors = StepFactors::of(control, report.grad_clip);
            let written = self.write(&mut slots, &mut io, &mut views, &factors, large);
            self.views = views.recycled();
            written?;
        }
        report.parallelism = Some(parallelism);
        Ok(report)
    }
}

impl CpuBackend {
    /// The rounds that write no tensor: the Gram pass, the check of what came in, the solve.
    fn read<'a>(
        &mut self,
        slots: &mut Slots<'_>,
        io: &'a StepIo<'_, '_>,
        refs: &mut Views<AdapterRefs<'a>, ParamRefs<'a>>,
        control: &Control,
        large: bool,
    ) -> Result<StepReport, Error> {
        refs.reserve(slots);
        for io in io.adapters.iter() {
            refs.adapters[io.id.index()] = Some(AdapterRefs::of(io)?);
        }
        for io in io.params.iter() {
            refs.params[io.id.index()] = Some(ParamRefs::of(io)?);
        }
        let engine = &self.engine;
        let (adapters, params) = refs.batches(slots, &mut self.adapters, &mut self.params);
        engine.round(
            large,
            adapters,
            params,
            &|parallel, slot, work, refs| {
                engine.adapter(parallel, slot, work, AdapterTask::GramPass(refs));
            },
            &|parallel, slot, work, refs| {
                engine.param(parallel, slot, work, ParamTask::SumSquares(refs));
            },
        );
        if let Some(rejection) = first_rejection(slots, io, &self.adapters, &self.params) {
            return rejection.into_outcome(control);
        }

        let mut report = StepReport::new(control.lr_factor, 0.0, 1.0);
        report.grad_norm = self.gradient_norm(control.grad_scale);
        report.grad_clip = match control.max_grad_norm {
            Some(limit) if report.grad_norm > limit => limit / report.grad_norm,
            _ => 1.0,
        };
        let factors = StepFactors::of(control, report.grad_clip);
        let (adapters, params) = refs.batches(slots, &mut self.adapters, &mut self.params);
        engine.round(
            large,
            adapters,
            params,
            &|parallel, slot, work, _| {
                engine.adapter(parallel, slot, work, AdapterTask::Solve(factors));
            },
            &|_, _, _, _| {},
        );
        Ok(report)
    }

    /// The round that writes. On an error everything is as it was.
    fn write<'a>(
        &mut self,
        slots: &mut Slots<'_>,
        io: &'a mut StepIo<'_, '_>,
        views: &mut Views<AdapterViews<'a>, ParamViews<'a>>,
        factors: &StepFactors,
        large: bool,
    ) -> Result<(), Error> {
        views.reserve(slots);
        for io in io.adapters.iter_mut() {
            let id = io.id.index();
            views.adapters[id] = Some(AdapterViews::of(io)?);
        }
        for io in io.params.iter_mut() {
            let id = io.id.index();
            views.params[id] = Some(ParamViews::of(io)?);
        }
        self.commit_at_risk(slots, views, factors)?;
        let engine = &self.engine;
        let (adapters, params) = views.batches(slots, &mut self.adapters, &mut self.params);
        engine.round(
            large,
            adapters,
            params,
            &|parallel, slot, work, views| {
                engine.adapter(parallel, slot, work, AdapterTask::Commit(views, *factors));
            },
            &|parallel, slot, work, views| {
                engine.param(parallel, slot, work, ParamTask::Commit(views, *factors));
            },
        );
        for (slot, views) in slots.adapters.iter().zip(&mut views.adapters) {
            let w0 = views.as_mut().and_then(|views| views.w0.as_mut());
            if let (Some(w0), true) = (w0, slot.hyper.decay_base) {
                let lr = slot.hyper.lr * factors.lr_factor;
                let factor = decay::one_minus_lr_w(&slot.hyper, lr);
                decay::decay_base(engine.level, w0.reborrow(), factor);
            }
        }
        Ok(())
    }

    /// Steps what is at risk of an overflow, one by one, and goes back on all of it where one came.
    fn commit_at_risk(
        &mut self,
        slots: &mut Slots<'_>,
        views: &mut Views<AdapterViews<'_>, ParamViews<'_>>,
        factors: &StepFactors,
    ) -> Result<(), Error> {
        let mut adapters = Vec::new();
        let mut params = Vec::new();
        let outcome = self.try_at_risk(slots, views, factors, &mut adapters, &mut params);
        if outcome.is_err() {
            let level = self.engine.level;
            for (id, snapshot) in adapters {
                let slot = &mut slots.adapters[id];
                if let Some(views) = &mut views.adapters[id] {
                    slot.report = snapshot.restore(level, &mut views.f, &mut slot.state);
                }
            }
            for (id, snapshot) in params {
                let slot = &mut slots.params[id];
                if let Some(views) = &mut views.params[id] {
                    snapshot.restore(level, &mut views.value, &mut slot.state);
                }
            }
        }
        outcome
    }

    /// Stops at the first overflow; leaves a snapshot of everything that it stepped.
    fn try_at_risk(
        &mut self,
        slots: &mut Slots<'_>,
        views: &mut Views<AdapterViews<'_>, ParamViews<'_>>,
        factors: &StepFactors,
        adapters: &mut Vec<(usize, Snapshot<AdapterReport, 2>)>,
        params: &mut Vec<(usize, Snapshot<(), 1>)>,
    ) -> Result<(), Error> {
        let engine = &self.engine;
        let level = engine.level;
        for (id, work) in self.adapters.iter_mut().enumerate() {
            let slot = &mut slots.adapters[id];
            let Some(views) = views.adapters[id].as_mut().filter(|_| work.at_risk) else {
                continue;
            };
            let snapshot = Snapshot::take(level, FACTORS, &views.f, &slot.state, slot.report);
            engine.adapter(false, slot, work, AdapterTask::Commit(views, *factors));
            let finite = snapshot.check(level, &slot.spec.subject(), &views.f, &slot.state);
            adapters.push((id, snapshot));
            finite?;
        }
        for (id, work) in self.params.iter_mut().enumerate() {
            let slot = &mut slots.params[id];
            let at_risk = work.listed && work.overflow_is_possible(slot, factors);
            let Some(views) = views.params[id].as_mut().filter(|_| at_risk) else {
                continue;
            };
            let snapshot = Snapshot::take(level, VALUE, &views.value, &slot.state, ());
            engine.param(false, slot, work, ParamTask::Commit(views, *factors));
            let finite = snapshot.check(level, &slot.spec.subject(), &views.value, &slot.state);
            params.push((id, snapshot));
            finite?;
        }
        Ok(())
    }
}

/// The factors in errors. B is seen transposed.
const FACTORS: [NamedValues; 2] = [
    NamedValues {
        name: "A after the step",
        transposed: false,
    },
    NamedValues {
        name: "B after the step",
        transposed: true,
    },
];

/// A parameter's value in errors.
const VALUE: [NamedValues; 1] = [NamedValues {
    name: "value after the step",
    transposed: false,
}];

/// Views by the number of the adapter or parameter; `None` for what is not stepped.
struct Views<A, P> {
    adapters: Vec<Option<A>>,
    params: Vec<Option<P>>,
}

impl<A, P> Default for Views<A, P> {
    fn default() -> Self {
        Views {
            adapters: Vec::new(),
            params: Vec::new(),
        }
    }
}

impl<A, P> Views<A, P> {
    /// One place for each slot, all empty.
    fn reserve(&mut self, slots: &Slots<'_>) {
        self.adapters.resize_with(slots.adapters.len(), || None);
        self.params.resize_with(slots.params.len(), || None);
    }

    /// Everything by number, side by side.
    fn batches<'b>(
        &'b mut self,
        slots: &'b mut Slots<'_>,
        adapters: &'b mut [AdapterWork],
        params: &'b mut [ParamWork],
    ) -> (AdapterBatch<'b, A>, ParamBatch<'b, P>) {
        let adapters = Batch {
            slots: &mut *slots.adapters,
            works: adapters,
            views: &mut self.adapters[..],
        };
        let params = Batch {
            slots: &mut *slots.params,
            works: params,
            views: &mut self.params[..],
        };
        (adapters, params)
    }

    /// The memory alone, for views with other lifetimes. `collect` keeps a vector's memory where
    /// old and new elements have the same layout.
    fn recycled<B, Q>(self) -> Views<B, Q> {
        Views {
            adapters: self.adapters.into_iter().filter_map(|_| None).collect(),
            params: self.params.into_iter().filter_map(|_| None).collect(),
        }
    }
}

/// Slots, what is known of them, and their tensors, side by side.
struct Batch<'b, S, W, V> {
    slots: &'b mut [S],
    works: &'b mut [W],
    views: &'b mut [Option<V>],
}

splittable!([S: Send, W: Send, V: Send] Batch<'_, S, W, V> { slots, works, views });

type AdapterBatch<'b, V> = Batch<'b, AdapterSlot, AdapterWork, V>;
type ParamBatch<'b, V> = Batch<'b, ParamSlot, ParamWork, V>;

/// Something whose passes may be cut up for several threads.
trait MaySplit {
    fn split(&self) -> bool;
}

impl MaySplit for AdapterWork {
    fn split(&self) -> bool {
        self.split
    }
}

impl MaySplit for ParamWork {
    fn split(&self) -> bool {
        self.split
    }
}

impl<S: Send, W: MaySplit + Send, V: Send> Batch<'_, S, W, V> {
    /// The large ones one after another, each on all threads, and then the others side by side,
    /// each on one. `each` is told which.
    fn for_each(self, large: bool, each: &(impl Fn(bool, &mut S, &mut W, &mut V) + Sync)) {
        let slots = self.slots.iter_mut().zip(&mut *self.works);
        for ((slot, work), views) in slots.zip(&mut *self.views) {
            if let (Some(views), true) = (views, work.split()) {
                each(true, slot, work, views);
            }
        }
        parallel_for(large, 0, self, &|_, one| {
            let (slot, work) = (&mut one.slots[0], &mut one.works[0]);
            if let (Some(views), false) = (&mut one.views[0], work.split()) {
                each(false, slot, work, views);
            }
        });
    }
}

/// What is done with an adapter in one round.
enum AdapterTask<'t, 'a> {
    GramPass(&'t AdapterRefs<'a>),
    Solve(StepFactors),
    Commit(&'t mut AdapterViews<'a>, StepFactors),
}

/// What is done with an unpaired parameter in one round.
enum ParamTask<'t, 'a> {
    SumSquares(&'t ParamRefs<'a>),
    Commit(&'t mut ParamViews<'a>, StepFactors),
}

impl Engine {
    /// One round over all adapters and parameters.
    fn round<V: Send, Q: Send>(
        &self,
        large: bool,
        adapters: AdapterBatch<'_, V>,
        params: ParamBatch<'_, Q>,
        adapter: &(impl Fn(bool, &mut AdapterSlot, &mut AdapterWork, &mut V) + Sync),
        param: &(impl Fn(bool, &mut ParamSlot, &mut ParamWork, &mut Q) + Sync),
    ) {
        let run = || {
            adapters.for_each(large, adapter);
            params.for_each(large, param);
        };
        if large {
            self.threads.enter(run);
        } else {
            run();
        }
    }

    fn adapter(
        &self,
        parallel: bool,
        slot: &mut AdapterSlot,
        work: &mut AdapterWork,
        task: AdapterTask<'_, '_>,
    ) {
        if adapter::in_f64(slot) {
            self.adapter_in(&self.f64s, parallel, slot, work, task);
        } else {
            self.adapter_in(&self.f32s, parallel, slot, work, task);
        }
    }

    fn adapter_in<T: MomentElement>(
        &self,
        workspaces: &Workspaces<T>,
        parallel: bool,
        slot: &mut AdapterSlot,
        work: &mut AdapterWork,
        task: AdapterTask<'_, '_>,
    ) {
        let ctx = self.ctx(workspaces, parallel);
        let mut workspace = workspaces.adapter(slot.spec.r);
        match task {
            AdapterTask::GramPass(refs) => work.gram_pass(&ctx, &mut workspace, slot, refs),
            AdapterTask::Solve(factors) => work.solve(&mut workspace, slot, &factors),
            AdapterTask::Commit(views, factors) => {
                work.commit(&ctx, &mut workspace, slot, views, &factors);
            }
        }
    }

    fn param(
        &self,
        parallel: bool,
        slot: &mut ParamSlot,
        work: &mut ParamWork,
        task: ParamTask<'_, '_>,
    ) {
        if param::in_f64(slot) {
            self.param_in(&self.f64s, parallel, slot, work, task);
        } else {
            self.param_in(&self.f32s, parallel, slot, work, task);
        }
    }

    fn param_in<T: MomentElement>(
        &self,
        workspaces: &Workspaces<T>,
        parallel: bool,
        slot: &mut ParamSlot,
        work: &mut ParamWork,
        task: ParamTask<'_, '_>,
    ) {
        let ctx = self.ctx(workspaces, parallel);
        match task {
            ParamTask::SumSquares(refs) => {
                work.sum_squares(&ctx, &mut workspaces.adapter(1), refs);
            }
            ParamTask::Commit(views, factors) => work.commit(&ctx, slot, views, &factors),
        }
    }

    fn ctx<'c, T>(&self, workspaces: &'c Workspaces<T>, parallel: bool) -> ParallelCtx<'c, T> {
        ParallelCtx {
            level: self.level,
            parallel,
            workspaces,
        }
    }
}
