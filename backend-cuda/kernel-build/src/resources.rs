//! What the kernels use of a multiprocessor, as ptxas says.

use std::fmt::Write;

use crate::result::Result;

/// The table, among the kernels.
pub const FILE: &str = "resources.txt";

const HEAD: &str = "\
# What every kernel uses: registers of a thread, bytes of its stack and of its spilled registers, bytes
# of static shared memory of a block. Written by `lora-pro-cuda-kernels build`; `check` compares it.
";

/// What one kernel uses on one target: registers, stack, spilled bytes, static shared memory.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    kernel: String,
    /// The number in `sm_90`.
    generation: u32,
    numbers: [u32; 4],
}

/// The report of `ptxas -v`.
pub fn parse(log: &str, target: &str) -> Vec<Use> {
    let generation = target.trim_start_matches("sm_").parse().unwrap_or_default();
    let (mut uses, mut function) = (Vec::<Use>::new(), "");
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().into();
            uses.push(Use {
                kernel,
                generation,
                numbers: [0; 4],
            });
        }
        let Some(last) = uses.last_mut() else {
            continue;
        };
        if let Some((_, name)) = line.split_once("Function properties for ") {
            function = name.trim();
        }
        // A function that a kernel calls is part of the kernel's own numbers.
        let of_kernel = function == last.kernel || line.contains(": Used ");
        let marks = [
            " registers",
            " bytes stack frame",
            " bytes spill stores",
            " bytes smem",
        ];
        for (number, mark) in last.numbers.iter_mut().zip(marks).filter(|_| of_kernel) {
            *number = before(line, mark).unwrap_or(*number);
        }
    }
    uses
}

/// What else ptxas says.
pub fn without(log: &str) -> String {
    let report = |line: &&str| line.starts_with("ptxas info") || line.contains("bytes stack frame");
    let rest: Vec<&str> = log.lines().filter(|line| !report(line)).collect();
    rest.join("\n")
}

/// The table as text; static shared memory is an error, since the launches know of none.
pub fn table(mut uses: Vec<Use>) -> Result<String> {
    uses.sort();
    if let Some(u) = uses.iter().find(|u| u.numbers[3] != 0) {
        return Err(format!("{} has static shared memory", u.kernel));
    }
    let width = uses.iter().map(|u| u.kernel.len()).fold(8, usize::max);
    let mut text = String::from(HEAD);
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "# {:1$} target  registers  stack  spilled  shared",
        "kernel",
        width - 2
    );
    for Use {
        kernel,
        generation,
        numbers: [registers, stack, spilled, shared],
    } in &uses
    {
        let target = format!("sm_{generation}");
        let _ = writeln!(
            text,
            "{kernel:width$} {target:6} {registers:10} {stack:6} {spilled:8} {shared:7}"
        );
    }
    Ok(text)
}

/// The number in front of a mark.
fn before(line: &str, mark: &str) -> Option<u32> {
    let (head, _) = line.split_once(mark)?;
    head.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'wide' for 'sm_90'
ptxas info    : Function properties for wide
    32 bytes stack frame, 48 bytes spill stores, 128 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 32 bytes cumulative stack size
ptxas info    : Compile time = 14.133 ms
ptxas info    : Function properties for helper
    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'fill' for 'sm_90'
ptxas info    : Function properties for fill
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers, 416 bytes cmem[0]
";

    #[test]
    fn a_log_becomes_a_table() {
        let mut uses = parse(LOG, "sm_90");
        uses.extend(parse(
            "ptxas info : Compiling entry function 'fill' for 'sm_100'",
            "sm_100",
        ));
        let table = table(uses).unwrap();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "# kernel target  registers  stack  spilled  shared",
                "fill     sm_90          12      0        0       0",
                "fill     sm_100          0      0        0       0",
                "wide     sm_90          48     32       48       0",
            ]
        );
    }

    #[test]
    fn warnings_stand_out() {
        let rest = without(&format!("{LOG}ptxas warning : spilled\n"));
        assert_eq!(rest, "ptxas warning : spilled");
    }

    #[test]
    fn static_shared_memory_is_refused() {
        let log = LOG.replace("0 barriers,", "0 barriers, 1024 bytes smem,");
        let error = table(parse(&log, "sm_80")).unwrap_err();
        assert_eq!(error, "fill has static shared memory");
    }
}
