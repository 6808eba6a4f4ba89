//! What is stepped: a pair of factors, or an unpaired parameter.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::scale::Scale;
use crate::tensor::DType;

/// One adapter: the pair (A: r x n, B: m x r) on a weight of shape m x n.
///
/// Rank, scale and group are per adapter, so PEFT's `rank_pattern` and `alpha_pattern`
/// are a matter of filling in different specs.
///
/// ```
/// use lora_pro_core::{AdapterSpec, DType};
/// let spec = AdapterSpec::new("layers.0.q", 768, 768, 8).alpha(16.0).dtype(DType::Bf16);
/// assert_eq!(spec.s(), 2.0);
/// assert_eq!(spec.a_shape(), [8, 768]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AdapterSpec {
    /// Unique name; every error and report about the adapter carries it.
    pub name: String,
    /// Out features: rows of W and of B.
    pub m: usize,
    /// In features: columns of W and of A.
    pub n: usize,
    /// Rank: columns of B and rows of A, from 1 to min(m, n).
    pub r: usize,
    /// The scale s.
    pub scale: Scale,
    /// Storage type of A and B and their gradients.
    pub dtype: DType,
    /// Name of the group whose hyper-parameters apply; `None` for the common ones.
    #[serde(default)]
    pub group: Option<String>,
}

impl AdapterSpec {
    /// An adapter in f32 with scale s = 1, in no group. `m`, `n`, `r`: out features, in features,
    /// rank.
    pub fn new(name: impl Into<String>, m: usize, n: usize, r: usize) -> Self {
        AdapterSpec {
            name: name.into(),
            m,
            n,
            r,
            scale: Scale::Explicit(1.0),
            dtype: DType::F32,
            group: None,
        }
    }

    /// With s = alpha / r.
    pub fn alpha(self, alpha: f64) -> Self {
        self.scale(Scale::Alpha(alpha))
    }

    /// With another scale.
    pub fn scale(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }

    /// With another storage type of A, B and their gradients.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// In a group of [`crate::Config::groups`].
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// The scale as a number.
    pub fn s(&self) -> f64 {
        self.scale.value(self.r)
    }

    /// Shape of A: `[r, n]`.
    pub fn a_shape(&self) -> [usize; 2] {
        [self.r, self.n]
    }

    /// Shape of B: `[m, r]`.
    pub fn b_shape(&self) -> [usize; 2] {
        [self.m, self.r]
    }

    /// How errors call this adapter.
    pub fn subject(&self) -> String {
        format!("adapter `{}`", self.name)
    }

    /// Rejects impossible shapes, ranks and scales (law 18).
    pub fn validate(&self) -> Result<(), Error> {
        let subject = self.subject();
        for (field, value) in [("m", self.m), ("n", self.n), ("r", self.r)] {
            if value == 0 {
                return Err(Error::invalid(&subject, field, 0, "at least 1"));
            }
        }
        let limit = self.m.min(self.n);
        if self.r > limit {
            let expected = format!("at most min(m, n) = {limit}");
            return Err(Error::invalid(&subject, "r", self.r, expected));
        }
        self.scale.validate(&subject, self.r)
    }
}

/// An unpaired parameter (bias, layer norm, head), stepped by ordinary AdamW.
///
/// It is seen as a matrix; a vector is a matrix of one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ParamSpec {
    /// Unique name.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Storage type of the parameter and its gradient.
    pub dtype: DType,
    /// Name of the group whose hyper-parameters apply; `None` for the common ones.
    #[serde(default)]
    pub group: Option<String>,
}

impl ParamSpec {
    /// A parameter in f32, in no group.
    pub fn new(name: impl Into<String>, rows: usize, cols: usize) -> Self {
        ParamSpec {
            name: name.into(),
            rows,
            cols,
            dtype: DType::F32,
            group: None,
        }
    }

    /// With another storage type.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// In a group of [`crate::Config::groups`].
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// How errors call this parameter.
    pub fn subject(&self) -> String {
        format!("parameter `{}`", self.name)
    }

    /// Rejects empty shapes.
    pub fn validate(&self) -> Result<(), Error> {
        for (field, value) in [("rows", self.rows), ("cols", self.cols)] {
            if value == 0 {
                return Err(Error::invalid(&self.subject(), field, 0, "at least 1"));
            }
        }
        Ok(())
    }
}
