//! Peak memory of a process that does nothing but a row's work.

use std::process::{Command, Stdio};

use lora_pro_core::Error;
use serde::{Deserialize, Serialize};

use crate::work::{Engine, Job, Workload};

/// What a run may need beside its data: the program, thread stacks, scratch memory.
pub const ALLOWANCE: u64 = 64 << 20;

/// Steps of the process; the first ones need the most.
const STEPS: usize = 3;

/// What a process found out about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Bytes of its largest resident set; `None` where the system does not tell.
    pub peak: Option<u64>,
    /// Bytes of parameters, gradients and state.
    pub data: u64,
}

/// Does the job in this process. Only the first call in a process tells the truth: a peak stays.
pub fn footprint(job: &Job, engine: Engine<'_>) -> Result<Footprint, Error> {
    let mut work = Workload::new(job, engine)?;
    for _ in 0..STEPS {
        work.step()?;
    }
    Ok(Footprint {
        peak: peak_resident(),
        data: work.bytes(),
    })
}

/// Runs a process that prints its footprint as JSON.
pub fn of_process(command: &mut Command) -> Result<Footprint, Error> {
    let failed = |reason: String| {
        Error::backend(
            "benchmark's",
            format!("the process that measures memory: {reason}"),
        )
    };
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}: {}", output.status, said.trim_end())));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

/// Bytes of this process's largest resident set, where /proc tells it.
pub fn peak_resident() -> Option<u64> {
    peak_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kilobytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read() {
        let status = "Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(peak_in(status), Some(1234 * 1024));
        assert_eq!(peak_in("Name:\tx\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_there_on_linux() {
        assert!(peak_resident().unwrap() > 0);
    }
}
