//! A whole run: every row checked, measured and judged.

use std::process::Command;

use lora_pro_core::{Backend, Error, Manifest, Method, MomentDType};

use crate::check::{Check, check};
use crate::machine::Machine;
use crate::memory::{self, ALLOWANCE};
use crate::others::Ticks;
use crate::report::{GoalReport, LimitReport, Measured, Report, RowOutcome, RowReport, SCHEMA};
use crate::rounds::{self, floors, no_floor};
use crate::rows::{Floor, Limit, Measure, Row};
use crate::size::Size;
use crate::stats::Samples;
use crate::verdict::GoalVerdict;
use crate::work::{Engine, Job};

/// What is to be run.
pub struct Bench<'a> {
    /// The rows.
    pub rows: Vec<Row>,
    /// Full size, or quick.
    pub size: Size,
    /// Threads of rows that do not say otherwise.
    pub threads: usize,
    /// Seconds for the rounds of each row.
    pub seconds: f64,
    /// Makes the backend.
    pub engine: Engine<'a>,
    /// The command of a process that prints the [`memory::Footprint`] of a row as JSON; without
    /// one, rows about memory are not available.
    pub process: Option<&'a dyn Fn(&Row) -> Command>,
    /// Told before each row: rows done, all rows, what comes.
    pub told: &'a dyn Fn(usize, usize, &str),
}

impl Bench<'_> {
    /// Runs everything.
    pub fn run(&self) -> Result<Report, Error> {
        let all = self.rows.len();
        (self.told)(0, all, "what the machine can do");
        let backend: Manifest = (self.engine)(self.threads)?.manifest();
        let machine = Machine::measured(self.threads, self.size)?;
        let mut checks = Checks::default();
        let mut rows = Vec::new();
        for (done, row) in self.rows.iter().enumerate() {
            (self.told)(done, all, &row.id);
            rows.push(self.row(row, &mut checks)?);
        }
        (self.told)(all, all, "done");
        Ok(Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            machine,
            backend,
            size: self.size,
            threads: self.threads,
            seconds_per_row: self.seconds,
            rows,
        })
    }

    /// What a process of its own does for [`Measure::Memory`].
    pub fn footprint(&self, row: &Row) -> Result<memory::Footprint, Error> {
        memory::footprint(&self.job(row)?, self.engine)
    }

    fn job(&self, row: &Row) -> Result<Job, Error> {
        Job::new(&row.work, self.size.divisor(), self.threads)
    }

    fn row(&self, row: &Row, checks: &mut Checks) -> Result<RowReport, Error> {
        let job = self.job(row)?;
        let outcome = match self.outcome(row, &job, checks) {
            Err(error @ Error::Unsupported { .. }) => RowOutcome::NotAvailable {
                reason: error.to_string(),
            },
            other => other?,
        };
        Ok(RowReport {
            id: row.id.clone(),
            what: row.what.clone(),
            measure: row.measure,
            threads: job.threads,
            outcome,
        })
    }

    fn outcome(&self, row: &Row, job: &Job, checks: &mut Checks) -> Result<RowOutcome, Error> {
        let check = checks.of(job, self.engine, self.size)?;
        if !check.holds() {
            let Check { error, tolerance } = check;
            return Ok(RowOutcome::Wrong {
                reason: format!(
                    "{error:.1e} from the reference, of which {tolerance:.0e} is allowed"
                ),
            });
        }
        let before = Ticks::now();
        let Some(samples) = self.samples(row, job)? else {
            return Ok(RowOutcome::NotAvailable {
                reason: "no peak memory of a process on this system".into(),
            });
        };
        let others = before.and_then(|before| Ticks::now()?.others_since(before));
        let cost = job.cost();
        let (value, floor_values) = split(samples);
        let goal = |limits: &Vec<Limit>| self.goal(row, limits, &value, &floor_values);
        Ok(RowOutcome::Measured(Measured {
            check,
            traffic: cost.traffic(),
            operations: cost.operations,
            others,
            goals: row.goals.iter().map(goal).collect(),
            value,
        }))
    }

    /// The value and the floors; nothing where the system does not tell.
    fn samples(&self, row: &Row, job: &Job) -> Result<Option<Vec<Samples>>, Error> {
        let once = |values: Vec<f64>| values.into_iter().map(|x| Samples::of(vec![x])).collect();
        match row.measure {
            Measure::Step | Measure::FirstStep => {
                let round = rounds::round(row, self.size, self.threads, self.engine)?;
                let at_least = self.size.rounds();
                Ok(Some(rounds::run(round, self.seconds, at_least)?))
            }
            Measure::State => Ok(Some(once(self.state(row, job)?))),
            Measure::Memory => Ok(self.memory(row)?.map(once)),
        }
    }

    fn state(&self, row: &Row, job: &Job) -> Result<Vec<f64>, Error> {
        let bytes = |job: &Job| Ok(job.optimizer(self.engine)?.state_bytes() as f64);
        let mut values = vec![bytes(job)?];
        for floor in floors(row) {
            let Floor::Step(change) = floor else {
                return Err(no_floor(row, floor));
            };
            let other = row.work.changed(*change);
            values.push(bytes(&Job::new(
                &other,
                self.size.divisor(),
                self.threads,
            )?)?);
        }
        Ok(values)
    }

    fn memory(&self, row: &Row) -> Result<Option<Vec<f64>>, Error> {
        let Some(process) = self.process else {
            return Ok(None);
        };
        let found = memory::of_process(&mut process(row))?;
        let bound = (found.data + ALLOWANCE) as f64;
        Ok(found.peak.map(|peak| vec![peak as f64, bound]))
    }

    fn goal(
        &self,
        row: &Row,
        limits: &[Limit],
        value: &Samples,
        floor_values: &[Samples],
    ) -> GoalReport {
        let floors = floors(row);
        // Every limit's floor is in the list, and has its samples at the same place.
        let samples = |floor: &Floor| {
            let at = floors.iter().position(|other| *other == floor).unwrap_or(0);
            floor_values[at].clone()
        };
        let limits: Vec<LimitReport> = limits
            .iter()
            .map(|Limit { times, floor }| LimitReport {
                floor: floor.to_string(),
                times: *times,
                value: samples(floor),
            })
            .collect();
        let allowed = |limit: &LimitReport| limit.times * limit.value.median;
        let largest = (0..limits.len())
            .max_by(|x, y| allowed(&limits[*x]).total_cmp(&allowed(&limits[*y])))
            .unwrap_or(0);
        let ratio = value.over(&limits[largest].value);
        let verdict = match self.size {
            Size::Quick => GoalVerdict::NotJudged,
            Size::Full => GoalVerdict::of(&ratio, limits[largest].times),
        };
        GoalReport {
            limits,
            largest,
            ratio,
            verdict,
        }
    }
}

/// The first is the value, the others are floors.
fn split(mut samples: Vec<Samples>) -> (Samples, Vec<Samples>) {
    let floors = samples.split_off(1);
    (samples.remove(0), floors)
}

/// Checks that were made: rows with the same method, moments, rank and threads share one.
#[derive(Default)]
struct Checks(Vec<(Key, Check)>);

type Key = (Method, MomentDType, usize, usize);

impl Checks {
    fn of(&mut self, job: &Job, engine: Engine<'_>, size: Size) -> Result<Check, Error> {
        let rank = job.specs.iter().map(|spec| spec.r).max().unwrap_or(1);
        let key = (job.hyper.method, job.hyper.moment_dtype, rank, job.threads);
        if let Some((_, check)) = self.0.iter().find(|(known, _)| *known == key) {
            return Ok(*check);
        }
        let backend: Box<dyn Backend> = engine(job.threads)?;
        let found = check(job, backend, size)?;
        self.0.push((key, found));
        Ok(found)
    }
}
