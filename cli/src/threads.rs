//! The numbers of threads, told to candle once.

use std::{env, num::NonZero, thread};

/// Threads of matrix products: rayon's variable, which candle reads too.
const PRODUCTS: &str = "RAYON_NUM_THREADS";

/// Threads of candle's other operations.
const OTHERS: &str = "CANDLE_NUM_THREADS";

/// Sets the variables where they are not set.
///
/// Without the first, candle counts the cores anew before every matrix product, by reading
/// /proc/cpuinfo: measured, half of the comparison's time. The threads of the second are one pool for
/// the whole program, whose callers wait in a loop for each other and for its threads; where other
/// programs or other runs of a comparison use the cores, that is most of the time. Without them, 60
/// steps of a small BERT beside compilers took 10 s of the CPU instead of 40, and 24 s instead of 83.
///
/// To be called before anything else: no other thread may be running.
pub fn tell() {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    for (variable, threads) in [(PRODUCTS, threads), (OTHERS, 1)] {
        if env::var_os(variable).is_none() {
            // SAFETY: `main` calls this first, so no other thread reads the environment meanwhile.
            unsafe { env::set_var(variable, threads.to_string()) };
        }
    }
}
