//! The memory floor: a pass over as many bytes as a step must move.
//!
//! Arrays that a step changes are read, multiplied by a number and written in place; arrays that it
//! only reads are summed. There is one multiplication for each number, far less than a core can
//! do while it waits for memory. That the pass is bound by memory is not taken for granted:
//! [`Pass::rate`] of a buffer that fits into the cache is printed beside that of a large one.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use lora_pro_core::Error;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::fill;
use crate::model::Cost;
use crate::pool::pool;

/// Numbers that a thread takes at once: 256 KiB.
const CHUNK: usize = 1 << 16;

/// Independent sums, so that additions need not wait for each other.
const LANES: usize = 32;

/// Buffers of the size of a step's.
pub struct Pass {
    in_place: Vec<f32>,
    read: Vec<f32>,
    pool: Arc<ThreadPool>,
    down: bool,
}

impl Pass {
    /// Buffers for the bytes of `cost`.
    pub fn new(cost: Cost, threads: usize) -> Result<Self, Error> {
        let floats = |bytes: u64| bytes.div_ceil(4) as usize;
        Ok(Pass {
            in_place: fill::numbers(floats(cost.in_place), 1.0, 1),
            read: fill::numbers(floats(cost.read), 1.0, 2),
            pool: Arc::new(pool(threads)?),
            down: false,
        })
    }

    /// Goes over everything once; the seconds that it took.
    pub fn run(&mut self) -> f64 {
        self.run_many(1)
    }

    /// Goes over everything so many times; the mean seconds of a time. A buffer in the cache needs
    /// it: starting the threads takes longer than one pass.
    pub fn run_many(&mut self, times: usize) -> f64 {
        let start = Instant::now();
        let pool = self.pool.clone();
        pool.install(|| (0..times).for_each(|_| self.once()));
        start.elapsed().as_secs_f64() / times as f64
    }

    fn once(&mut self) {
        // Halved and doubled in turn: numbers neither vanish nor grow.
        self.down = !self.down;
        let factor = if self.down { 0.5 } else { 2.0 };
        self.in_place
            .par_chunks_mut(CHUNK)
            .for_each(|chunk| chunk.iter_mut().for_each(|x| *x *= factor));
        black_box(self.read.par_chunks(CHUNK).map(sum).sum::<f32>());
    }

    /// Bytes per second of a run that took `seconds`.
    pub fn rate(&self, seconds: f64) -> f64 {
        let bytes = 4 * (2 * self.in_place.len() + self.read.len());
        bytes as f64 / seconds
    }
}

fn sum(chunk: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let blocks = chunk.chunks_exact(LANES);
    let rest: f32 = blocks.remainder().iter().sum();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x;
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_changes_what_it_should_and_comes_back() {
        let cost = Cost {
            in_place: 4 * 100_000,
            read: 4 * 77,
            operations: 0,
        };
        let mut pass = Pass::new(cost, 2).unwrap();
        let before = pass.in_place.clone();
        pass.run();
        assert!(
            pass.in_place
                .iter()
                .zip(&before)
                .all(|(x, y)| 2.0 * x == *y)
        );
        pass.run();
        assert_eq!(pass.in_place, before);
        assert_eq!(pass.rate(1.0), 4.0 * (200_000.0 + 77.0));
    }

    #[test]
    fn a_sum_has_all_numbers() {
        let numbers: Vec<f32> = (0..77).map(|k| k as f32).collect();
        assert_eq!(sum(&numbers), 77.0 * 76.0 / 2.0);
    }
}
