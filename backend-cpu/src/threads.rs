//! The threads that a step runs on.

use lora_pro_core::Error;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::NAME;

/// A pool of its own, or the one that the caller is in.
pub(crate) struct Threads {
    pool: Option<ThreadPool>,
    pub(crate) count: usize,
}

impl Threads {
    /// The rayon pool that the caller is in, or the global one.
    pub(crate) fn ambient() -> Self {
        Threads {
            pool: None,
            count: rayon::current_num_threads(),
        }
    }

    /// A pool of its own; for one thread, the caller's.
    pub(crate) fn of(count: usize) -> Result<Self, Error> {
        if count == 0 {
            return Err(Error::invalid(
                "the cpu backend",
                "threads",
                count,
                "at least 1",
            ));
        }
        if count == 1 {
            return Ok(Threads { pool: None, count });
        }
        let pool = ThreadPoolBuilder::new().num_threads(count).build();
        let failed = |error: rayon::ThreadPoolBuildError| Error::backend(NAME, error);
        Ok(Threads {
            pool: Some(pool.map_err(failed)?),
            count,
        })
    }

    /// Runs something that will call `rayon::join`: inside of the pool, so that entering it is
    /// paid for once.
    pub(crate) fn enter<R: Send>(&self, run: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(run),
            None => rayon::scope(|_| run()),
        }
    }
}
