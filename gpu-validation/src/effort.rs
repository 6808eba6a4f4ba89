//! How much of everything.

/// Numbers of cases, steps and samples, and sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Its name in results: those of one are no results of another.
    pub name: &'static str,
    /// Whether adapters take many blocks.
    pub large: bool,
    /// Steps of the endurance run.
    pub steps: u64,
    /// Steps of it that are made with the same gradients.
    pub refresh: u64,
    /// What the loss must fall to in these steps, in parts of what it is at the start.
    pub loss: f64,
    /// Steps that are compared with the reference, one by one.
    pub followed: u64,
    /// What sides and layers of the timed models are divided by.
    pub divisor: usize,
    /// Bytes of a copy that shows the bandwidth.
    pub copied: usize,
    /// Samples of each time, if they do not take too long.
    pub samples: usize,
    /// Milliseconds that a sample takes at least, by many steps in it.
    pub sample_ms: f64,
}

impl Effort {
    /// What results are made with: about half an hour.
    pub const FULL: Effort = Effort {
        name: "full",
        large: true,
        steps: 10_000,
        refresh: 10,
        loss: 0.1,
        followed: 300,
        divisor: 1,
        copied: 1 << 30,
        samples: 30,
        sample_ms: 4.0,
    };

    /// Shows in minutes that everything runs.
    pub const QUICK: Effort = Effort {
        name: "quick",
        large: true,
        steps: 500,
        refresh: 10,
        loss: 0.98,
        followed: 20,
        divisor: 8,
        copied: 1 << 28,
        samples: 7,
        sample_ms: 1.0,
    };

    /// For tests.
    pub const TINY: Effort = Effort {
        name: "tiny",
        large: false,
        steps: 40,
        refresh: 2,
        loss: 0.999,
        followed: 3,
        divisor: 512,
        copied: 1 << 16,
        samples: 2,
        sample_ms: 0.0,
    };
}
