//! Work and floors in turn, so that what disturbs the machine disturbs all of them.

use std::time::Instant;

use lora_pro_core::Error;

use crate::matmul::Matmul;
use crate::model::Cost;
use crate::pass::Pass;
use crate::rows::{Floor, Measure, Row, Work};
use crate::size::Size;
use crate::stats::Samples;
use crate::work::{Data, Engine, Job, Workload};

/// Later steps that a first step is compared with.
const LATER: usize = 3;

/// Measures one round: the row's value, then its floors in the order of [`floors`].
pub type Round<'a> = Box<dyn FnMut() -> Result<Vec<f64>, Error> + 'a>;

/// The different floors of a row.
pub fn floors(row: &Row) -> Vec<&Floor> {
    let mut floors = Vec::new();
    for limit in row.goals.iter().flatten() {
        if !floors.contains(&&limit.floor) {
            floors.push(&limit.floor);
        }
    }
    floors
}

/// What a round of a row that measures time consists of.
pub fn round<'a>(
    row: &Row,
    size: Size,
    threads: usize,
    engine: Engine<'a>,
) -> Result<Round<'a>, Error> {
    let job = |work: &Work| Job::new(work, size.divisor(), threads);
    if row.measure == Measure::FirstStep {
        return first_step(job(&row.work)?, engine);
    }
    let own = job(&row.work)?;
    let mut probes = vec![step(&own, engine)?];
    for floor in floors(row) {
        probes.push(match floor {
            Floor::Pass => pass(own.cost(), own.threads)?,
            Floor::Matmul => matmul(own.cost(), own.threads, size)?,
            Floor::Step(change) => {
                let other = row.work.changed(*change);
                step(&job(&other)?, engine)?
            }
            other => return Err(no_floor(row, other)),
        });
    }
    Ok(Box::new(move || {
        probes.iter_mut().map(|probe| probe()).collect()
    }))
}

/// Rounds until the time is over; the first one warms up and is not counted. One [`Samples`] for
/// each number of a round.
pub fn run(mut round: Round<'_>, seconds: f64, at_least: usize) -> Result<Vec<Samples>, Error> {
    let mut columns: Vec<Vec<f64>> = round()?.iter().map(|_| Vec::new()).collect();
    let start = Instant::now();
    let mut done = 0;
    while done < at_least || start.elapsed().as_secs_f64() < seconds {
        for (column, value) in columns.iter_mut().zip(round()?) {
            column.push(value);
        }
        done += 1;
    }
    Ok(columns.into_iter().map(Samples::of).collect())
}

/// A floor that does not go with what the row measures.
pub fn no_floor(row: &Row, floor: &Floor) -> Error {
    let expected = "one that goes with what the row measures";
    Error::invalid(&format!("row `{}`", row.id), "floor", floor, expected)
}

/// The seconds of one thing.
type Probe<'a> = Box<dyn FnMut() -> Result<f64, Error> + 'a>;

fn step<'a>(job: &Job, engine: Engine<'a>) -> Result<Probe<'a>, Error> {
    let mut work = Workload::new(job, engine)?;
    Ok(Box::new(move || work.step()))
}

fn pass<'a>(cost: Cost, threads: usize) -> Result<Probe<'a>, Error> {
    let mut pass = Pass::new(cost, threads)?;
    Ok(Box::new(move || Ok(pass.run())))
}

fn matmul<'a>(cost: Cost, threads: usize, size: Size) -> Result<Probe<'a>, Error> {
    let matmul = Matmul::new(size.matmul(), threads)?;
    Ok(Box::new(move || Ok(cost.operations as f64 / matmul.rate())))
}

/// A new optimizer in every round, on the same tensors: memory for its state is new, too.
fn first_step(job: Job, engine: Engine<'_>) -> Result<Round<'_>, Error> {
    let mut data = Data::new(&job);
    Ok(Box::new(move || {
        let mut optimizer = job.optimizer(engine)?;
        let first = data.step(&mut optimizer)?;
        let later = (0..LATER).map(|_| data.step(&mut optimizer));
        let later = Samples::of(later.collect::<Result<_, _>>()?);
        Ok(vec![first, later.median])
    }))
}
