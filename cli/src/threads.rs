//! The number of threads, told to candle once.

use std::{env, num::NonZero, thread};

/// rayon's variable, which candle reads too.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// Sets the variable where it is not set. Without it candle counts the cores anew before every
/// matrix product, by reading /proc/cpuinfo: measured, half of the comparison's time.
///
/// To be called before anything else: no other thread may be running.
pub fn tell() {
    if env::var_os(VARIABLE).is_none() {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        // SAFETY: `main` calls this first, so no other thread reads the environment meanwhile.
        unsafe { env::set_var(VARIABLE, threads.to_string()) };
    }
}
