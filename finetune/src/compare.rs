//! Every method at every learning rate with every seed.
//!
//! Each run is computed by one thread, and several runs at a time: the numbers do not depend on
//! how many cores there are.

use std::{
    num::NonZero,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lora_pro_core::{Backend, Error};
use lora_pro_models::Parameters;

use crate::candidate::Candidate;
use crate::comparison::{Comparison, MeanStdErr, MethodResult, RateResult, RunResult, Setup};
use crate::distance::distance;
use crate::method_spec::Trains;
use crate::network::Network;
use crate::run::RunConfig;
use crate::run_log::{LoggedRun, RunKey, RunLog};
use crate::setup::Experiment;
use crate::task::Task;
use crate::trainer::Trainer;

/// Makes a backend; called once per run, on the thread that computes the run.
pub type MakeBackend<'a> = &'a (dyn Fn() -> Result<Box<dyn Backend>, Error> + Sync);

/// Told how many runs are done, of how many, and which was the last.
pub type OnProgress<'a> = &'a (dyn Fn(usize, usize, &str) + Sync);

/// Steps whose update sizes are reported.
const FIRST_UPDATES: usize = 50;

/// A comparison of methods on a task.
pub struct Compare<'a> {
    /// What is compared.
    pub experiment: &'a Experiment,
    /// On what.
    pub task: &'a Task,
    /// What steps.
    pub make_backend: MakeBackend<'a>,
    /// Where progress is told.
    pub progress: OnProgress<'a>,
    /// No run is begun that would probably end after this time: the longest so far is what tells.
    pub time_limit: Option<Duration>,
}

impl std::fmt::Debug for Compare<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compare")
            .field("experiment", &self.experiment)
            .field("task", &self.task)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

/// One run of the comparison.
#[derive(Clone)]
struct Job {
    candidate: Arc<Candidate>,
    /// Its place among the candidates.
    place: usize,
    lr: f64,
    seed: u64,
}

/// What a job gives.
struct JobResult {
    job: Job,
    run: LoggedRun,
    /// The trained network, of full fine-tuning only: the others are measured against it.
    network: Option<Network>,
}

/// A job's state at the start: full fine-tuning runs again where others need its weights.
struct Plan {
    reference: Vec<Job>,
    others: Vec<Job>,
    done: Vec<JobResult>,
}

impl Compare<'_> {
    /// Runs what `log` does not have, adds it to `log`, and sums up.
    pub fn run(&self, log: &mut RunLog) -> Result<Comparison, Error> {
        let start = Instant::now();
        let candidates = self.experiment.candidates()?;
        let candidates: Vec<_> = candidates.into_iter().map(Arc::new).collect();
        let crcs = self.checksums()?;
        let Plan {
            reference,
            others,
            done: mut results,
        } = self.plan(&candidates, log, crcs)?;
        let (told, total) = (AtomicUsize::new(0), reference.len() + others.len());
        let log = Mutex::new(log);
        let longest = AtomicU64::new(0);
        let late = || {
            let next = Duration::from_millis(longest.load(Ordering::Relaxed));
            self.time_limit
                .is_some_and(|limit| start.elapsed() + next > limit)
        };
        let work = |jobs: &[Job], full: &[JobResult]| {
            let results = in_parallel(jobs, |job| {
                if late() {
                    return Ok(None);
                }
                let begun = start.elapsed();
                let mut result = self.one(job, full)?;
                let took = (start.elapsed() - begun).as_millis();
                longest.fetch_max(took as u64, Ordering::Relaxed);
                let config = job.config();
                let key = RunKey::new(job.candidate.method, &config, crcs);
                // A poisoned lock still holds whole runs.
                let mut log = log.lock().unwrap_or_else(|lock| lock.into_inner());
                match log.find(&key) {
                    // Full fine-tuning that ran again gave the same numbers.
                    Some(known) => result.run = known.clone(),
                    // It is added below: what lacks it would need it to run again anyway.
                    None if result.network.is_some() => {}
                    None => log.add(&key, &result.run)?,
                }
                let what = format!("{} at {:e}, seed {}", job.candidate.name, job.lr, job.seed);
                (self.progress)(told.fetch_add(1, Ordering::Relaxed) + 1, total, &what);
                Ok(Some(result))
            });
            Ok::<_, Error>(results?.into_iter().flatten().collect::<Vec<_>>())
        };
        let mut full = work(&reference, &[])?;
        self.compare_orders(&mut full)?;
        for one in full.iter().filter(|one| one.network.is_some()) {
            let config = one.job.config();
            let key = RunKey::new(one.job.candidate.method, &config, crcs);
            let mut log = log.lock().unwrap_or_else(|lock| lock.into_inner());
            log.renew(&key, &one.run)?;
        }
        results.extend(work(&others, &full)?);
        results.extend(full);
        let order = |one: &JobResult| (one.job.place, one.job.lr.to_bits(), one.job.seed);
        results.sort_by_key(order);
        let methods = candidates.iter().enumerate();
        let methods = methods.map(|(place, one)| method_result(place, &one.name, &results));
        Ok(Comparison {
            methods: methods.collect(),
            setup: Setup {
                seconds: start.elapsed().as_secs_f64(),
                runs: [self.jobs(&candidates).len(), results.len()],
                ..self.describe()?
            },
        })
    }

    /// All runs, the first seed's first: a comparison that is cut short has something of everything.
    fn jobs(&self, candidates: &[Arc<Candidate>]) -> Vec<Job> {
        let mut jobs = Vec::new();
        for &seed in &self.experiment.seeds {
            for (place, candidate) in candidates.iter().enumerate() {
                jobs.extend(self.experiment.lrs.iter().map(|&lr| Job {
                    candidate: candidate.clone(),
                    place,
                    lr,
                    seed,
                }));
            }
        }
        jobs
    }

    fn plan(
        &self,
        candidates: &[Arc<Candidate>],
        log: &RunLog,
        crcs: [u32; 4],
    ) -> Result<Plan, Error> {
        let logged = |job: &Job| {
            log.find(&RunKey::new(job.candidate.method, &job.config(), crcs))
                .cloned()
        };
        let jobs = self.jobs(candidates);
        let missing = |job: &Job| !is_reference(job) && logged(job).is_none();
        let needed = |job: &Job| {
            let same = |other: &Job| other.lr == job.lr && other.seed == job.seed;
            self.experiment.distance && jobs.iter().any(|other| same(other) && missing(other))
        };
        let mut plan = Plan {
            reference: Vec::new(),
            others: Vec::new(),
            done: Vec::new(),
        };
        for job in &jobs {
            match logged(job) {
                Some(run) if !(is_reference(job) && needed(job)) => plan.done.push(JobResult {
                    job: job.clone(),
                    run,
                    network: None,
                }),
                _ if is_reference(job) => plan.reference.push(job.clone()),
                _ => plan.others.push(job.clone()),
            }
        }
        Ok(plan)
    }

    fn checksums(&self) -> Result<[u32; 4], Error> {
        let Task {
            base,
            train,
            validation,
            test,
            ..
        } = self.task;
        Ok([
            base.checksum()?,
            train.checksum()?,
            validation.checksum()?,
            test.checksum()?,
        ])
    }

    /// One run from start to end, with everything that is measured of it.
    fn one(&self, job: &Job, full: &[JobResult]) -> Result<JobResult, Error> {
        let (experiment, task) = (self.experiment, self.task);
        let run = job.config();
        let has_adapters = matches!(job.candidate.method.trains, Trains::Adapters(_));
        let backend = (self.make_backend)()?;
        let mut trainer = Trainer::new(&task.base, task.train.clone(), run, backend)?;
        let measured = gap_steps(experiment);
        let (mut gap, mut gap_rescaled) = (Vec::new(), Vec::new());
        while !trainer.finished() {
            let step = trainer.steps_done() + 1;
            if has_adapters && measured.contains(&step) {
                let now = trainer.gap()?;
                gap.push((step, now.raw));
                gap_rescaled.push((step, now.rescaled));
            }
            trainer.step()?;
        }
        let network = trainer.network()?;
        let rival = full
            .iter()
            .find(|other| other.job.lr == job.lr && other.job.seed == job.seed);
        let rival = rival.and_then(|other| other.network.as_ref());
        let history = trainer.history();
        let test = network.evaluate(task.test.as_ref())?;
        let result = RunResult {
            seed: job.seed,
            validation_score: network.evaluate(task.validation.as_ref())?.value,
            test_score: test.value,
            test_right: test
                .right
                .iter()
                .map(|&hit| if hit { '1' } else { '0' })
                .collect(),
            final_loss: tail_mean(&history.losses),
            distance_to_full: match rival {
                Some(full) => distance(&network, full, &task.base)?,
                None => None,
            },
            // Filled when all runs of full fine-tuning are there.
            distance_by_order: None,
            gap,
            gap_rescaled,
            losses: history.losses.clone(),
            first_updates: match has_adapters {
                true => history
                    .updates
                    .iter()
                    .take(FIRST_UPDATES)
                    .copied()
                    .collect(),
                false => Vec::new(),
            },
            diverged: trainer.diverged(),
        };
        let kept = is_reference(job) && experiment.distance;
        Ok(JobResult {
            job: job.clone(),
            run: LoggedRun {
                result,
                seconds_per_step: trainer.optimizer_time().as_secs_f64(),
                state_bytes: trainer.state_bytes(),
            },
            network: match kept {
                true => Some(adapted_weights(&network)?),
                false => None,
            },
        })
    }

    /// The distance of each full fine-tuning to the one with the next seed, where it is not known.
    fn compare_orders(&self, full: &mut [JobResult]) -> Result<(), Error> {
        full.sort_by_key(|one| (one.job.lr.to_bits(), one.job.seed));
        for runs in full.chunk_by_mut(|one, next| one.job.lr == next.job.lr) {
            for k in 0..runs.len() {
                let next = &runs[(k + 1) % runs.len()];
                let known = runs[k].run.result.distance_by_order;
                if let (None, Some(one), Some(next)) = (known, &runs[k].network, &next.network) {
                    let apart = distance(one, next, &self.task.base)?;
                    runs[k].run.result.distance_by_order = apart.filter(|_| runs.len() > 1);
                }
            }
        }
        Ok(())
    }

    fn describe(&self) -> Result<Setup, Error> {
        let (experiment, task) = (self.experiment, self.task);
        let before = task.base.evaluate(task.test.as_ref())?;
        Ok(Setup {
            task: task.name.clone(),
            network: task.about.clone(),
            rank: experiment.rank,
            alpha: experiment.alpha,
            batch: experiment.batch,
            steps: experiment.steps,
            seeds: experiment.seeds.clone(),
            split: [task.train.len(), task.validation.len(), task.test.len()],
            metric: before.metric,
            score_before: before.value,
            runs: [0, 0],
            backend: (self.make_backend)()?.manifest(),
            seconds: 0.0,
        })
    }
}

impl Job {
    fn config(&self) -> RunConfig {
        self.candidate.run(self.lr, self.seed)
    }
}

/// Whether the others are measured against this run.
fn is_reference(job: &Job) -> bool {
    job.place == 0 && job.candidate.method.trains == Trains::Weights
}

/// The network with nothing but the weights that distances are measured on.
fn adapted_weights(network: &Network) -> Result<Network, Error> {
    let modules = network.model.linear_modules();
    let names = modules.iter().map(|module| format!("{module}.weight"));
    let weights = names.map(|name| {
        let weight = network.parameters.tensor(&name)?.clone();
        Ok((name, weight))
    });
    let weights = weights.collect::<candle_core::Result<_>>();
    Ok(Network {
        model: network.model.clone(),
        parameters: Parameters::new(weights.map_err(lora_pro_candle::bridge::candle_error)?),
    })
}

/// `work` on every item, in order of the items, on all cores; the first error ends it.
///
/// Each thread has a rayon pool of its own with one thread, which is what candle's matrix
/// products then use: they neither wait for each other nor split differently.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let threads = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(items.len());
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
    let results = Mutex::new(Vec::new());
    let worker = || {
        while failed.load(Ordering::Relaxed) == usize::MAX {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = work(item);
            if result.is_err() {
                failed.fetch_min(index, Ordering::Relaxed);
            }
            // A poisoned lock still holds whole results.
            results
                .lock()
                .unwrap_or_else(|lock| lock.into_inner())
                .push((index, result));
        }
    };
    thread::scope(|scope| {
        (0..threads).try_for_each(|_| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
            let pool = pool.map_err(|error| Error::backend("candle", error))?;
            scope.spawn(move || pool.install(worker));
            Ok::<_, Error>(())
        })
    })?;
    let mut results = results
        .into_inner()
        .unwrap_or_else(|lock| lock.into_inner());
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// `gap_points` steps from the first to the last, evenly spaced.
fn gap_steps(experiment: &Experiment) -> Vec<usize> {
    let (last, points) = (experiment.steps.saturating_sub(1), experiment.gap_points);
    (0..points)
        .map(|k| 1 + k * last / points.saturating_sub(1).max(1))
        .collect()
}

/// Mean of the last tenth.
fn tail_mean(losses: &[f64]) -> f64 {
    let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
    MeanStdErr::of(tail).mean
}

fn method_result(place: usize, name: &str, results: &[JobResult]) -> MethodResult {
    let own = results.iter().filter(|one| one.job.place == place);
    let own: Vec<&JobResult> = own.collect();
    let mut rates: Vec<RateResult> = Vec::new();
    for one in &own {
        let result = one.run.result.clone();
        match rates.last_mut().filter(|rate| rate.lr == one.job.lr) {
            Some(rate) => rate.runs.push(result),
            None => rates.push(RateResult {
                lr: one.job.lr,
                runs: vec![result],
            }),
        }
    }
    let mut seconds: Vec<f64> = own.iter().map(|one| one.run.seconds_per_step).collect();
    seconds.sort_by(f64::total_cmp);
    MethodResult {
        name: name.into(),
        best_lr: best_rate(&rates),
        seconds_per_step: seconds.get(seconds.len() / 2).copied().unwrap_or_default(),
        state_bytes: own.first().map_or(0, |one| one.run.state_bytes),
        rates,
    }
}

/// The rate with the highest mean validation score; of equals, the smallest.
fn best_rate(rates: &[RateResult]) -> f64 {
    let mut best = (f64::NEG_INFINITY, 0.0);
    for rate in rates {
        let score = rate.spread(|run| run.validation_score).mean;
        if score > best.0 {
            best = (score, rate.lr);
        }
    }
    best.1
}
