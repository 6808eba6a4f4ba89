//! Every method at every learning rate of its grid with every seed.
//!
//! Each run is computed by one thread, and several runs at a time: the numbers do not depend on
//! how many cores there are.

use std::{
    num::NonZero,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use lora_pro_core::{Backend, Error};

use crate::comparison::{Comparison, MeanStdErr, MethodResult, RateResult, RunResult, Setup};
use crate::data::Dataset;
use crate::distance::distance;
use crate::method_spec::{METHODS, MethodSpec};
use crate::network::Network;
use crate::setup::Experiment;
use crate::task::Task;
use crate::trainer::Trainer;

/// Makes a backend; called once per run, on the thread that computes the run.
pub type MakeBackend<'a> = &'a (dyn Fn() -> Result<Box<dyn Backend>, Error> + Sync);

/// Told how many runs are done, of how many, and which was the last.
pub type OnProgress<'a> = &'a (dyn Fn(usize, usize, &str) + Sync);

/// Steps whose update sizes are reported.
const FIRST_UPDATES: usize = 50;

/// One run of the comparison.
#[derive(Clone, Copy)]
struct Job {
    method: usize,
    lr: f64,
    seed: u64,
}

/// What a job gives.
struct JobResult {
    job: Job,
    result: RunResult,
    seconds_per_step: f64,
    state_bytes: usize,
    /// The trained network, of full fine-tuning only: the others are measured against it.
    network: Option<Network>,
}

/// Runs [`METHODS`] on `data`.
pub fn compare(
    experiment: &Experiment,
    data: &Dataset,
    make_backend: MakeBackend<'_>,
    progress: OnProgress<'_>,
) -> Result<Comparison, Error> {
    let start = Instant::now();
    let task = Task::prepare(experiment, data, make_backend()?)?;
    let (reference, others) = jobs(experiment);
    let total = reference.len() + others.len();
    let done = AtomicUsize::new(0);
    let work = |jobs: &[Job], full: &[JobResult]| {
        in_parallel(jobs, |&job| {
            let outcome = run(experiment, &task, full, job, make_backend)?;
            let what = format!("{} at {}", METHODS[job.method].name, job.lr);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total, &what);
            Ok(outcome)
        })
    };
    let mut outcomes = work(&reference, &[])?;
    compare_orders(&mut outcomes, &task)?;
    outcomes.extend(work(&others, &outcomes)?);
    let methods = (0..METHODS.len())
        .map(|k| method_result(k, &outcomes))
        .collect();
    Ok(Comparison {
        setup: Setup {
            seconds: start.elapsed().as_secs_f64(),
            ..describe(experiment, data, &task, make_backend()?.as_ref())?
        },
        methods,
    })
}

/// Full fine-tuning's runs, which come first, and all others'. Full fine-tuning runs at every
/// rate that any method has: it is what they are measured against.
fn jobs(experiment: &Experiment) -> (Vec<Job>, Vec<Job>) {
    let mut all: Vec<f64> = METHODS.iter().flat_map(|one| one.grid).copied().collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    let grid = |one: &MethodSpec| {
        if one.method.is_none() {
            all.clone()
        } else {
            one.grid.to_vec()
        }
    };
    let rates = METHODS
        .iter()
        .enumerate()
        .flat_map(|(k, one)| grid(one).into_iter().map(move |lr| (k, lr)));
    let jobs = rates.flat_map(|(method, lr)| {
        experiment
            .seeds
            .iter()
            .map(move |&seed| Job { method, lr, seed })
    });
    jobs.partition(|job| METHODS[job.method].method.is_none())
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

/// One run from start to end, with everything that is measured of it.
fn run(
    experiment: &Experiment,
    task: &Task,
    full: &[JobResult],
    job: Job,
    make_backend: MakeBackend<'_>,
) -> Result<JobResult, Error> {
    let spec = &METHODS[job.method];
    let run = spec.run(experiment, job.lr, job.seed);
    let mut trainer = Trainer::new(&task.base, &task.train, run, make_backend()?)?;
    let measured = gap_steps(experiment);
    let (mut gap, mut gap_rescaled) = (Vec::new(), Vec::new());
    while !trainer.finished() {
        let step = trainer.steps_done() + 1;
        if spec.method.is_some() && measured.contains(&step) {
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
    let result = RunResult {
        seed: job.seed,
        validation_accuracy: network.accuracy(&task.validation)?,
        test_accuracy: network.accuracy(&task.test)?,
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
        first_updates: match spec.method {
            Some(_) => history
                .updates
                .iter()
                .take(FIRST_UPDATES)
                .copied()
                .collect(),
            None => Vec::new(),
        },
        diverged: trainer.diverged(),
    };
    Ok(JobResult {
        job,
        result,
        seconds_per_step: trainer.optimizer_time().as_secs_f64(),
        state_bytes: trainer.state_bytes(),
        network: spec.method.is_none().then_some(network),
    })
}

/// The distance of each full fine-tuning to the one with the next seed.
fn compare_orders(full: &mut [JobResult], task: &Task) -> Result<(), Error> {
    for runs in full.chunk_by_mut(|one, next| one.job.lr == next.job.lr) {
        for k in 0..runs.len() {
            let next = &runs[(k + 1) % runs.len()];
            if let (Some(one), Some(next)) = (&runs[k].network, &next.network) {
                let apart = distance(one, next, &task.base)?;
                runs[k].result.distance_by_order = apart.filter(|_| runs.len() > 1);
            }
        }
    }
    Ok(())
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

fn method_result(method: usize, outcomes: &[JobResult]) -> MethodResult {
    let own: Vec<&JobResult> = outcomes
        .iter()
        .filter(|one| one.job.method == method)
        .collect();
    let mut rates: Vec<RateResult> = Vec::new();
    for outcome in &own {
        let result = outcome.result.clone();
        match rates.last_mut().filter(|rate| rate.lr == outcome.job.lr) {
            Some(rate) => rate.runs.push(result),
            None => rates.push(RateResult {
                lr: outcome.job.lr,
                runs: vec![result],
            }),
        }
    }
    let mut seconds: Vec<f64> = own.iter().map(|one| one.seconds_per_step).collect();
    seconds.sort_by(f64::total_cmp);
    MethodResult {
        name: METHODS[method].name.into(),
        best_lr: best_rate(&rates),
        seconds_per_step: seconds.get(seconds.len() / 2).copied().unwrap_or_default(),
        state_bytes: own.first().map_or(0, |one| one.state_bytes),
        rates,
    }
}

/// The rate with the highest mean validation accuracy; of equals, the smallest.
fn best_rate(rates: &[RateResult]) -> f64 {
    let mut best = (f64::NEG_INFINITY, 0.0);
    for rate in rates {
        let accuracy = rate.spread(|run| run.validation_accuracy).mean;
        if accuracy > best.0 {
            best = (accuracy, rate.lr);
        }
    }
    best.1
}

fn describe(
    experiment: &Experiment,
    data: &Dataset,
    task: &Task,
    backend: &dyn Backend,
) -> Result<Setup, Error> {
    let widths = [&[data.inputs()], &experiment.hidden[..], &[data.classes]].concat();
    let widths: Vec<String> = widths.iter().map(usize::to_string).collect();
    let known = (experiment.parts[0] * data.len() as f64).round();
    Ok(Setup {
        task: format!("{} {}", data.name, experiment.shift.describe()),
        network: format!(
            "an MLP {} with GELU, pre-trained on {known} rows; the hidden layers carry adapters, the head is trained by all",
            widths.join("-"),
        ),
        rank: experiment.rank,
        alpha: experiment.alpha,
        batch: experiment.batch,
        steps: experiment.steps,
        seeds: experiment.seeds.clone(),
        split: [task.train.len(), task.validation.len(), task.test.len()],
        accuracy_before: task.base.accuracy(&task.test)?,
        backend: backend.manifest(),
        seconds: 0.0,
    })
}
