//! Full size, or small enough for seconds.

use serde::{Deserialize, Serialize};

/// How much is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// What the goals are about.
    #[default]
    Full,
    /// Shapes that fit into the cache: shows that everything runs, and proves nothing about goals.
    Quick,
}

impl Size {
    /// What sides and layers of models are divided by.
    pub fn divisor(self) -> usize {
        match self {
            Size::Full => 1,
            Size::Quick => 32,
        }
    }

    /// Rows and columns of the matrix product. At 1536 faer is as fast as it gets.
    pub fn matmul(self) -> usize {
        match self {
            Size::Full => 1536,
            Size::Quick => 128,
        }
    }

    /// Bytes of the pass that tells the machine's rate: many times the cache.
    pub fn pass_bytes(self) -> u64 {
        match self {
            Size::Full => 512 << 20,
            Size::Quick => 4 << 20,
        }
    }

    /// Rounds that a row gets at least, whatever the time.
    pub fn rounds(self) -> usize {
        match self {
            Size::Full => 5,
            Size::Quick => 3,
        }
    }

    /// Seconds for the rounds of a row, where nothing else is asked for.
    pub fn seconds(self) -> f64 {
        match self {
            Size::Full => 10.0,
            Size::Quick => 0.02,
        }
    }
}
