//! Threads for the floors.

use lora_pro_core::Error;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool of its own, so that a floor has exactly the threads of the row.
pub fn pool(threads: usize) -> Result<ThreadPool, Error> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::backend("benchmark's", error))
}
