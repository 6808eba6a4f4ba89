//! Core's contract: one call steps a whole model.

use lora_pro_core::backend::{
    AdapterSlot, Buffer, Control, ParamSlot, Slots, StateTensor, StepIo, foreign_buffer,
};
use lora_pro_core::{Backend, DType, Error, Manifest, Rounding, StepReport};

use crate::base::shrink;
use crate::decay;
use crate::memory::{Memory, Stateful, check_state};
use crate::pair::{self, PairViews, PairWork, Setting};
use crate::param::{self, ParamViews, ParamWork};
use crate::passes::Crew;
use crate::path::Path;
use crate::plan::plan;
use crate::refusal::first_refusal;
use crate::scratch::Pool;
use crate::snapshot::Snapshot;
use crate::spread::spread;
use crate::threads::Threads;

/// The backend's name.
pub const NAME: &str = "cpu";

/// How a backend is set up; the default is right for everything but tests and benchmarks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads of a pool of its own; `None` for the rayon pool that the caller is in, or the
    /// global one.
    pub threads: Option<usize>,
    /// The instruction set; `None` for the fastest that the machine has.
    pub path: Option<Path>,
    /// Fill all scratch memory with NaN before each step: for tests.
    #[doc(hidden)]
    pub poison: bool,
}

/// LoRA-Pro on the CPU. See the crate's page for how it is built.
pub struct CpuBackend {
    engine: Engine,
    poison: bool,
    /// By the number of the adapter or parameter.
    adapters: Vec<PairWork>,
    params: Vec<ParamWork>,
}

/// What computes: shared by all threads of a step.
struct Engine {
    path: Path,
    threads: Threads,
    pool32: Pool<f32>,
    pool64: Pool<f64>,
}

impl CpuBackend {
    /// On the fastest instruction set of the machine, in the caller's rayon pool or the global one.
    pub fn new() -> Self {
        Self::on(Path::available()[0], Threads::ambient(), false)
    }

    /// With options.
    ///
    /// # Errors
    /// [`Error::Backend`] for an instruction set that the machine lacks or threads that cannot be
    /// had, [`Error::Invalid`] for no threads.
    pub fn with(options: Options) -> Result<Self, Error> {
        let path = Path::choose(options.path)?;
        let threads = options
            .threads
            .map_or_else(|| Ok(Threads::ambient()), Threads::of)?;
        Ok(Self::on(path, threads, options.poison))
    }

    fn on(path: Path, threads: Threads, poison: bool) -> Self {
        let (pool32, pool64) = (Pool::new(threads.count), Pool::new(threads.count));
        let engine = Engine {
            path,
            threads,
            pool32,
            pool64,
        };
        CpuBackend {
            engine,
            poison,
            adapters: Vec::new(),
            params: Vec::new(),
        }
    }

    /// Notes where everything is, and refuses state that is not ours.
    fn begin(&mut self, slots: &Slots<'_>, io: &mut StepIo<'_, '_>) -> Result<(), Error> {
        self.end();
        self.adapters
            .resize_with(slots.adapters.len(), PairWork::default);
        self.params
            .resize_with(slots.params.len(), ParamWork::default);
        for pair in io.adapters.iter_mut() {
            check_state(&slots.adapters[pair.id.index()].state)?;
            self.adapters[pair.id.index()].views = Some(PairViews::of(pair));
        }
        for param in io.params.iter_mut() {
            check_state(&slots.params[param.id.index()].state)?;
            self.params[param.id.index()].views = Some(ParamViews::of(param));
        }
        if self.poison {
            self.engine.pool32.poison();
            self.engine.pool64.poison();
            self.adapters.iter_mut().for_each(PairWork::poison);
        }
        Ok(())
    }

    /// Forgets what was borrowed.
    fn end(&mut self) {
        for work in &mut self.adapters {
            (work.views, work.done) = (None, false);
        }
        for work in &mut self.params {
            (work.views, work.done) = (None, false);
        }
    }

    /// The global norm of all gradients, added up in the order of registration.
    fn gradient_norm(&self, scale: f64) -> f64 {
        let adapters = self.adapters.iter().filter(|work| work.views.is_some());
        let adapters = adapters.flat_map(PairWork::gradient_squares);
        let params = self.params.iter().filter(|work| work.views.is_some());
        let params = params.map(|work| work.squares[1]);
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
            .code_path(self.engine.path.to_string())
            .threads(self.engine.threads.count)
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        Ok(Buffer::new(Memory::zeros(tensor)?))
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        let memory = buffer.get::<Memory>();
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
        let memory = buffer.get_mut::<Memory>();
        let memory = memory.ok_or_else(|| foreign_buffer(NAME, tensor.kind))?;
        *memory = Memory::from_bytes(tensor, bytes)?;
        Ok(())
    }

    fn step(
        &mut self,
        mut slots: Slots<'_>,
        mut io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        self.begin(&slots, &mut io)?;
        let (plan, large) = plan(
            &self.engine.threads,
            &slots,
            &mut self.adapters,
            &mut self.params,
        );
        let result = self.steps(&mut slots, &io, control, large);
        self.end();
        let mut report = result?;
        report.parallelism = Some(plan);
        Ok(report)
    }
}

impl CpuBackend {
    /// The three rounds of a step.
    fn steps(
        &mut self,
        slots: &mut Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
        large: bool,
    ) -> Result<StepReport, Error> {
        let mut report = StepReport::new(control.lr_factor, 0.0, 1.0);
        self.round(slots, Task::Survey, large);
        if let Some(refusal) = first_refusal(slots, io, &self.adapters, &self.params) {
            return refusal.into_outcome(control);
        }
        report.grad_norm = self.gradient_norm(control.grad_scale);
        report.grad_clip = match control.max_grad_norm {
            Some(limit) if report.grad_norm > limit => limit / report.grad_norm,
            _ => 1.0,
        };
        let setting = Setting {
            lr_factor: control.lr_factor,
            grad_scale: control.grad_scale,
            grad_clip: report.grad_clip,
        };
        self.round(slots, Task::Solve(setting), large);
        self.doubtful_first(slots, &setting)?;
        self.round(slots, Task::Commit(setting), large);
        for (slot, work) in slots.adapters.iter().zip(&self.adapters) {
            if let (Some(views), true) = (&work.views, slot.hyper.decay_base) {
                let factor = decay::whole(&slot.hyper, slot.hyper.lr * setting.lr_factor);
                shrink(self.engine.path, views, factor);
            }
        }
        Ok(report)
    }

    /// One task for all adapters and parameters: the large ones one after another, each on all
    /// threads, and the others side by side, each on one.
    fn round(&mut self, slots: &mut Slots<'_>, task: Task, large: bool) {
        let engine = &self.engine;
        let (adapters, params) = (&mut self.adapters[..], &mut self.params[..]);
        let (adapter_slots, param_slots) = (&mut *slots.adapters, &mut *slots.params);
        let run = move || {
            for (slot, work) in adapter_slots.iter_mut().zip(&mut *adapters) {
                if work.split {
                    engine.pair(task, true, slot, work);
                }
            }
            for (slot, work) in param_slots.iter_mut().zip(&mut *params) {
                if work.split {
                    engine.param(task, true, slot, work);
                }
            }
            spread(large, 0, (adapter_slots, adapters), &|_, (slot, work)| {
                let (slot, work): (&mut [AdapterSlot], &mut [PairWork]) = (slot, work);
                if !work[0].split {
                    engine.pair(task, false, &mut slot[0], &mut work[0]);
                }
            });
            spread(large, 0, (param_slots, params), &|_, (slot, work)| {
                let (slot, work): (&mut [ParamSlot], &mut [ParamWork]) = (slot, work);
                if !work[0].split {
                    engine.param(task, false, &mut slot[0], &mut work[0]);
                }
            });
        };
        if large {
            engine.threads.enter(run)
        } else {
            run()
        }
    }

    /// Steps what might overflow, one by one, and goes back on all of it where it did.
    fn doubtful_first(&mut self, slots: &mut Slots<'_>, setting: &Setting) -> Result<(), Error> {
        let path = self.engine.path;
        let mut taken: Vec<(bool, usize, Snapshot)> = Vec::new();
        let mut outcome = Ok(());
        for (k, (slot, work)) in slots
            .adapters
            .iter_mut()
            .zip(&mut self.adapters)
            .enumerate()
        {
            let Some(views) = work.views.filter(|_| work.doubtful) else {
                continue;
            };
            let named = [
                (views.f[0], "A after the step"),
                (views.f[1], "B after the step"),
            ];
            let snapshot = Snapshot::take(path, named, &slot.state);
            self.engine.pair(Task::Commit(*setting), false, slot, work);
            outcome = snapshot.check(path, &slot.spec.subject(), &slot.state);
            taken.push((true, k, snapshot));
            if outcome.is_err() {
                break;
            }
        }
        for (k, (slot, work)) in slots.params.iter_mut().zip(&mut self.params).enumerate() {
            let Some(views) = work.views.filter(|_| outcome.is_ok()) else {
                continue;
            };
            if !work.may_overflow(slot, setting) {
                continue;
            }
            let snapshot =
                Snapshot::take(path, [(views.value, "value after the step")], &slot.state);
            self.engine.param(Task::Commit(*setting), false, slot, work);
            outcome = snapshot.check(path, &slot.spec.subject(), &slot.state);
            taken.push((false, k, snapshot));
        }
        if outcome.is_err() {
            for (pair, k, snapshot) in taken {
                let state = if pair {
                    &mut slots.adapters[k].state
                } else {
                    &mut slots.params[k].state
                };
                snapshot.restore(path, state);
            }
        }
        outcome
    }
}

/// What is done with each adapter in one round.
#[derive(Clone, Copy)]
enum Task {
    Survey,
    Solve(Setting),
    Commit(Setting),
}

impl Engine {
    fn pair(&self, task: Task, parallel: bool, slot: &mut AdapterSlot, work: &mut PairWork) {
        if work.views.is_none() {
            return;
        }
        if pair::in_f64(slot) {
            self.pair_in(&self.pool64, task, parallel, slot, work);
        } else {
            self.pair_in(&self.pool32, task, parallel, slot, work);
        }
    }

    fn pair_in<T: Stateful>(
        &self,
        pool: &Pool<T>,
        task: Task,
        parallel: bool,
        slot: &mut AdapterSlot,
        work: &mut PairWork,
    ) {
        let crew = Crew {
            path: self.path,
            parallel,
            pool,
        };
        let mut lead = pool.lead(slot.spec.r);
        match task {
            Task::Survey => work.survey(&crew, &mut lead, slot),
            Task::Solve(setting) => work.solve(&mut lead, slot, &setting),
            Task::Commit(setting) => work.commit(&crew, &mut lead, slot, &setting),
        }
    }

    fn param(&self, task: Task, parallel: bool, slot: &mut ParamSlot, work: &mut ParamWork) {
        if work.views.is_none() {
            return;
        }
        if param::in_f64(slot) {
            self.param_in(&self.pool64, task, parallel, slot, work);
        } else {
            self.param_in(&self.pool32, task, parallel, slot, work);
        }
    }

    fn param_in<T: Stateful>(
        &self,
        pool: &Pool<T>,
        task: Task,
        parallel: bool,
        slot: &mut ParamSlot,
        work: &mut ParamWork,
    ) {
        let crew = Crew {
            path: self.path,
            parallel,
            pool,
        };
        match task {
            Task::Survey => work.survey(&crew, &mut pool.lead(1)),
            Task::Solve(_) => {}
            Task::Commit(setting) => work.commit(&crew, slot, &setting),
        }
    }
}
