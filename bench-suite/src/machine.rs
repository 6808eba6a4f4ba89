//! The machine, and what it can do.

use lora_pro_core::Error;
use serde::{Deserialize, Serialize};

use crate::matmul::Matmul;
use crate::model::Cost;
use crate::pass::Pass;
use crate::size::Size;
use crate::stats::Samples;

/// What the numbers of a run belong to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, or `unknown`.
    pub processor: String,
    /// Architecture.
    pub arch: String,
    /// Operating system.
    pub os: String,
    /// Threads that the system offers.
    pub cores: usize,
    /// What it can do with the threads of the run.
    pub rates: Rates,
}

/// Rates of the floors, medians.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Threads that were measured.
    pub threads: usize,
    /// Bytes per second of an in-place pass over memory.
    pub pass: f64,
    /// The same where everything is in the cache: the pass is bound by memory where this is much
    /// more.
    pub pass_in_cache: f64,
    /// Operations per second of a matrix product in f32.
    pub matmul: f64,
    /// Rows and columns of that product.
    pub matmul_size: usize,
}

/// Rounds of each rate.
const ROUNDS: usize = 5;

/// Bytes of the buffer in the cache.
const CACHED: u64 = 512 << 10;

/// Goes over the cached buffer so often in one round: one pass is too short for the clock.
const CACHED_PASSES: usize = 200;

impl Machine {
    /// This machine.
    pub fn measured(threads: usize, size: Size) -> Result<Self, Error> {
        Ok(Machine {
            processor: processor().unwrap_or_else(|| "unknown".into()),
            arch: std::env::consts::ARCH.into(),
            os: std::env::consts::OS.into(),
            cores: std::thread::available_parallelism().map_or(1, |count| count.get()),
            rates: Rates::measured(threads, size)?,
        })
    }
}

impl Rates {
    fn measured(threads: usize, size: Size) -> Result<Self, Error> {
        let matmul_size = size.matmul();
        Ok(Rates {
            threads,
            pass: pass_rate(size.pass_bytes(), 1, threads)?,
            // One thread, and so many times as fast with all: threads would wait for each other
            // longer than such a pass takes.
            pass_in_cache: threads as f64 * pass_rate(CACHED, CACHED_PASSES, 1)?,
            matmul: matmul_rate(matmul_size, threads)?,
            matmul_size,
        })
    }
}

fn pass_rate(bytes: u64, passes: usize, threads: usize) -> Result<f64, Error> {
    let cost = Cost {
        in_place: bytes,
        read: 0,
        operations: 0,
    };
    let mut pass = Pass::new(cost, threads)?;
    pass.run();
    let rounds = (0..ROUNDS).map(|_| pass.run_many(passes));
    let seconds = Samples::of(rounds.collect());
    Ok(pass.rate(seconds.median))
}

fn matmul_rate(size: usize, threads: usize) -> Result<f64, Error> {
    let matmul = Matmul::new(size, threads)?;
    matmul.rate();
    Ok(Samples::of((0..ROUNDS).map(|_| matmul.rate()).collect()).median)
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}
