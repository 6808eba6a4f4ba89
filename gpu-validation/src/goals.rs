//! What the numbers should be. They are judged by steps that are launched kernel by kernel, as an
//! ordinary training loop has them; what a graph does is told beside.

use lora_pro_bench::stats::Samples;
use lora_pro_core::{DType, Method, MomentDType};
use serde::{Deserialize, Serialize};

use crate::result::{Other, Timing};
use crate::store::Stored;
use crate::suites::Suite;
use crate::suites::side_by_side::{ADAMW_FACTORS, EFFICIENT_LOOP, FULL_LOOP, RANK};
use crate::suites::timings::{LLAMA, SQUARE};

/// A number, and what it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What it is.
    pub what: String,
    /// `ms`, `x` or `%`.
    pub unit: String,
    /// What was measured; nothing where a suite has not run.
    pub measured: Option<f64>,
    /// The same with steps that are replayed as a graph.
    pub as_graph: Option<f64>,
    /// The most, or the least, that it should be.
    pub limit: f64,
    /// Whether more is better.
    pub at_least: bool,
}

impl Goal {
    /// Whether it is met, where that is known.
    pub fn met(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.at_least {
            true => measured >= self.limit,
            false => measured <= self.limit,
        })
    }
}

/// All goals, from whatever suites there are.
pub fn goals(suites: &[Stored]) -> Vec<Goal> {
    let known = Known { suites };
    let at_most = |what: &str, unit: &str, limit, [measured, as_graph]: [Option<f64>; 2]| Goal {
        what: what.into(),
        unit: unit.into(),
        measured,
        as_graph,
        limit,
        at_least: false,
    };
    let at_least = |what: &str, unit: &str, limit, measured| Goal {
        at_least: true,
        ..at_most(what, unit, limit, measured)
    };
    let (f32, bf16) = (MomentDType::F32, MomentDType::Bf16);
    let efficient = known.ours(LLAMA, Method::Efficient, None, RANK);
    let factored = known.ours(LLAMA, Method::Factored, None, RANK);
    let full = known.ours(LLAMA, Method::Full, Some(f32), RANK);
    let mut all = vec![
        at_most(
            "efficient, over torch's fused AdamW on the same A and B",
            "x",
            1.3,
            efficient.map(|ms| Some(ms? / known.other(ADAMW_FACTORS)?)),
        ),
        at_most(
            "efficient, 224 adapters of Llama-2-7B",
            "ms",
            0.5,
            efficient,
        ),
        at_most(
            "factored, over efficient",
            "x",
            2.0,
            [0, 1].map(|k| Some(factored[k]? / efficient[k]?)),
        ),
        at_least(
            "full with bf16 moments, 224 adapters: share of the copy rate",
            "%",
            85.0,
            known.share(LLAMA, bf16, RANK),
        ),
    ];
    for rank in [8, 16, 32] {
        all.push(at_least(
            &format!("full with f32 moments, 4096 x 4096, r = {rank}: share of the copy rate"),
            "%",
            85.0,
            known.share(SQUARE, f32, rank),
        ));
    }
    let faster = |name, ours: [Option<f64>; 2]| ours.map(|ms| Some(known.other(name)? / ms?));
    all.push(at_least(
        "efficient, times as fast as a loop in torch",
        "x",
        300.0,
        faster(EFFICIENT_LOOP, efficient),
    ));
    all.push(at_least(
        "full with f32 moments, times as fast as a loop in torch",
        "x",
        30.0,
        faster(FULL_LOOP, full),
    ));
    all
}

/// What suites have measured.
struct Known<'p> {
    suites: &'p [Stored],
}

impl Known<'_> {
    fn timings(&self) -> impl Iterator<Item = &Timing> {
        let suites = self.suites.iter().filter(|x| x.suite == Suite::Timings);
        suites.flat_map(|stored| &stored.found.timings)
    }

    fn timing(
        &self,
        model: &str,
        method: Method,
        moments: Option<MomentDType>,
        rank: usize,
    ) -> Option<&Timing> {
        self.timings().find(|timing| {
            timing.model == model
                && timing.method == method
                && timing.moments == moments
                && timing.rank == rank
                && timing.dtype == DType::F32
        })
    }

    /// Milliseconds, kernel by kernel and as a graph.
    fn ours(
        &self,
        model: &str,
        method: Method,
        moments: Option<MomentDType>,
        rank: usize,
    ) -> [Option<f64>; 2] {
        let timing = self.timing(model, method, moments, rank);
        timing.map_or([None, None], |timing| {
            [&timing.step_ms, &timing.graph_ms].map(median)
        })
    }

    /// Percent of the copy rate at which the full mode's moments move.
    fn share(&self, model: &str, moments: MomentDType, rank: usize) -> [Option<f64>; 2] {
        let timing = self.timing(model, Method::Full, Some(moments), rank);
        let copies = self.suites.iter().find_map(|x| x.found.copy_rate.as_ref());
        let (Some(timing), Some(rate)) = (timing, copies) else {
            return [None, None];
        };
        [&timing.step_ms, &timing.graph_ms].map(|ms| share(timing.bytes, ms, rate.median))
    }

    /// Milliseconds of another implementation.
    fn other(&self, name: &str) -> Option<f64> {
        let all = self.suites.iter().flat_map(|x| &x.found.others);
        let named = |other: &&Other| other.name == name;
        median(&all.into_iter().find(named)?.ms)
    }
}

fn median(samples: &Option<Samples>) -> Option<f64> {
    samples.as_ref().map(|samples| samples.median)
}

/// Percent of a rate, in bytes a millisecond, at which so many bytes move.
pub fn share(bytes: u64, ms: &Option<Samples>, rate: f64) -> Option<f64> {
    Some(100.0 * bytes as f64 / median(ms)? / rate)
}
