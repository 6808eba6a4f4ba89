//! The arithmetic floor: the rate of faer's matrix product in f32.
//!
//! Every thread computes a product of its own at the same time as the others. A product that is
//! shared among threads waits at its seams; this one does not, and so is the stricter floor.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use lora_pro_core::Error;
use rayon::ThreadPool;

use crate::fill;
use crate::pool::pool;

/// The matrices of one thread.
struct Lane {
    left: Mat<f32>,
    right: Mat<f32>,
    product: Mat<f32>,
}

/// Matrices for every thread.
pub struct Matmul {
    lanes: Vec<Mutex<Lane>>,
    pool: ThreadPool,
    size: usize,
}

impl Matmul {
    /// Square matrices with sides of `size`.
    pub fn new(size: usize, threads: usize) -> Result<Self, Error> {
        let lane = |k: usize| {
            let matrix = |seed| {
                let numbers = fill::numbers(size * size, 1.0, seed);
                Mat::from_fn(size, size, |i, j| numbers[i + size * j])
            };
            let seed = 2 * k as u64;
            Mutex::new(Lane {
                left: matrix(seed),
                right: matrix(seed + 1),
                product: Mat::zeros(size, size),
            })
        };
        Ok(Matmul {
            lanes: (0..threads).map(lane).collect(),
            pool: pool(threads)?,
            size,
        })
    }

    /// One product on every thread: operations per second, of all threads together.
    pub fn rate(&self) -> f64 {
        let start = Instant::now();
        self.pool.broadcast(|context| {
            // Each lane has one thread; a lock is poisoned only by a panic that ends the run.
            let lane = self.lanes[context.index()].lock();
            let Lane {
                left,
                right,
                product,
            } = &mut *lane.unwrap_or_else(PoisonError::into_inner);
            let (left, right) = (left.as_ref(), right.as_ref());
            matmul(product.as_mut(), Accum::Replace, left, right, 1.0, Par::Seq);
        });
        let operations = 2.0 * (self.size as f64).powi(3) * self.lanes.len() as f64;
        operations / start.elapsed().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_computes_its_product() {
        let floor = Matmul::new(20, 2).unwrap();
        assert!(floor.rate() > 0.0);
        for lane in &floor.lanes {
            let lane = lane.lock().unwrap();
            let expected = &lane.left * &lane.right;
            assert!((&lane.product - expected).norm_max() < 1e-4);
        }
    }
}
