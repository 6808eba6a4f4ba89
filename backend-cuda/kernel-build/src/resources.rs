//! What the kernels use of a multiprocessor, as ptxas says.

use std::fmt::Write;

use crate::Result;

/// The table, among the kernels.
pub const FILE: &str = "resources.txt";

const HEAD: &str = "\
# What every kernel uses: registers of a thread, bytes of its stack and of its spilled registers, bytes
# of static shared memory of a block. Written by `lora-pro-cuda-kernels build`; `check` compares it.
";

/// What one kernel uses on one target.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    kernel: String,
    target: String,
    registers: u32,
    stack: u32,
    spilled: u32,
    shared: u32,
}

/// The report of `ptxas -v`.
pub fn parse(log: &str, target: &str) -> Result<Vec<Use>> {
    let mut uses: Vec<Use> = Vec::new();
    // Of the functions that a kernel calls, nothing is noted: its own numbers include them.
    let mut of_kernel = false;
    for line in log.lines() {
        if let Some(rest) = after(line, "Compiling entry function '") {
            uses.push(Use {
                kernel: rest.split('\'').next().unwrap_or_default().into(),
                target: target.into(),
                registers: 0,
                stack: 0,
                spilled: 0,
                shared: 0,
            });
        }
        let Some(last) = uses.last_mut() else {
            continue;
        };
        if let Some(function) = after(line, "Function properties for ") {
            of_kernel = function.trim() == last.kernel;
        } else if line.contains("bytes stack frame") && of_kernel {
            last.stack = before(line, " bytes stack frame").unwrap_or(0);
            last.spilled = before(line, " bytes spill stores").unwrap_or(0);
        } else if line.contains(": Used ") {
            last.registers = before(line, " registers")
                .ok_or_else(|| format!("ptxas says what is not understood: {line}"))?;
            last.shared = before(line, " bytes smem").unwrap_or(0);
        }
    }
    Ok(uses)
}

/// What else ptxas says.
pub fn without(log: &str) -> String {
    let report = |line: &&str| line.starts_with("ptxas info") || line.contains("bytes stack frame");
    let rest: Vec<&str> = log.lines().filter(|line| !report(line)).collect();
    rest.join("\n")
}

/// The table as text; static shared memory is an error, since the launches know of none.
pub fn table(mut uses: Vec<Use>) -> Result<String> {
    let order = |target: &str| target.trim_start_matches("sm_").parse().unwrap_or(0u32);
    uses.sort_by(|a, b| {
        let key = |u: &Use| (u.kernel.clone(), order(&u.target));
        key(a).cmp(&key(b))
    });
    if let Some(u) = uses.iter().find(|u| u.shared != 0) {
        return Err(format!("{} has static shared memory", u.kernel));
    }
    let width = uses
        .iter()
        .map(|u| u.kernel.len())
        .max()
        .unwrap_or(0)
        .max(8);
    let mut text = String::from(HEAD);
    let title = format!(
        "# {:1$} target  registers  stack  spilled  shared",
        "kernel",
        width - 2
    );
    text.push_str(&title);
    text.push('\n');
    for u in &uses {
        let _ = writeln!(
            text,
            "{:width$} {:6} {:10} {:6} {:8} {:7}",
            u.kernel, u.target, u.registers, u.stack, u.spilled, u.shared
        );
    }
    Ok(text)
}

fn after<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.split_once(mark).map(|parts| parts.1)
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
        let mut uses = parse(LOG, "sm_90").unwrap();
        uses.extend(
            parse(
                "ptxas info : Compiling entry function 'fill' for 'sm_100'",
                "sm_100",
            )
            .unwrap(),
        );
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
        assert_eq!(
            without(&format!("{LOG}ptxas warning : spilled\n")),
            "ptxas warning : spilled"
        );
    }

    #[test]
    fn static_shared_memory_is_refused() {
        let log = LOG.replace("0 barriers,", "0 barriers, 1024 bytes smem,");
        let error = table(parse(&log, "sm_80").unwrap()).unwrap_err();
        assert_eq!(error, "fill has static shared memory");
    }
}
