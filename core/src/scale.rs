//! The scale `s` in `W = W0 + s B A`.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How the scale `s` follows from the rank `r`.
///
/// ```
/// use lora_pro_core::Scale;
/// assert_eq!(Scale::Alpha(16.0).value(8), 2.0);
/// assert_eq!(Scale::RsLora(8.0).value(4), 4.0);
/// assert_eq!(Scale::Explicit(0.5).value(4), 0.5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// `s = alpha / r` (LoRA, 2106.09685).
    Alpha(f64),
    /// `s = alpha / sqrt(r)` (rsLoRA, 2312.03732).
    RsLora(f64),
    /// `s` itself.
    Explicit(f64),
}

impl Scale {
    /// The number `s` for rank `r`.
    pub fn value(self, r: usize) -> f64 {
        match self {
            Scale::Alpha(alpha) => alpha / r as f64,
            Scale::RsLora(alpha) => alpha / (r as f64).sqrt(),
            Scale::Explicit(s) => s,
        }
    }

    /// Rejects a scale that is zero, negative, NaN or infinite (law 18).
    pub(crate) fn validate(self, subject: &str, r: usize) -> Result<(), Error> {
        let s = self.value(r);
        if s.is_finite() && s > 0.0 {
            return Ok(());
        }
        Err(Error::invalid(subject, "scale", s, "positive and finite"))
    }
}
