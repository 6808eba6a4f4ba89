//! How much of the machine others used meanwhile: numbers of a busy machine look like numbers.

/// Ticks since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// Of all processors.
    all: u64,
    /// Of those, without work.
    idle: u64,
    /// Of those, with this process's work.
    own: u64,
}

impl Ticks {
    /// Until now; `None` where /proc does not tell.
    pub fn now() -> Option<Self> {
        let read = |path| std::fs::read_to_string(path).ok();
        parse(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    /// The part of the machine, from 0 to 1, that others used since `before`.
    pub fn others_since(&self, before: Ticks) -> Option<f64> {
        let all = self.all.checked_sub(before.all)?;
        let idle = self.idle.saturating_sub(before.idle);
        let own = self.own.saturating_sub(before.own);
        let others = all.saturating_sub(idle).saturating_sub(own);
        (all > 0).then(|| others as f64 / all as f64)
    }
}

/// Columns of the line `cpu`: user, nice, system, idle, iowait, irq, softirq, steal; guests are
/// counted in user. Fields 14 and 15 of the process, of which the second is its name in brackets:
/// user and system.
fn parse(machine: &str, process: &str) -> Option<Ticks> {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        let words = text.split_whitespace();
        words.map(|word| word.parse().ok()).collect()
    };
    let line = machine.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let columns = numbers(line)?;
    let (_, fields) = process.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().skip(11).take(2).collect();
    let own = numbers(&fields.join(" "))?;
    Some(Ticks {
        all: columns.get(..8)?.iter().sum(),
        idle: columns[3] + columns[4],
        own: own.iter().sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_and_subtracted() {
        let process = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20";
        let before = parse("cpu  10 0 10 100 5 0 0 5 9 9\ncpu0 1 2\n", process).unwrap();
        assert_eq!((before.all, before.idle, before.own), (130, 105, 42));
        let now = Ticks {
            all: 230,
            idle: 115,
            own: 92,
        };
        // A hundred ticks: 10 idle, 50 own.
        assert_eq!(now.others_since(before), Some(0.4));
        assert_eq!(before.others_since(before), None);
        assert_eq!(parse("intr 1\n", process), None);
    }
}
