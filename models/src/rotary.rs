//! Rotary position embeddings: Su et al., "RoFormer", <https://arxiv.org/abs/2104.09864>. Halves of a
//! head's vector are paired, as in Hugging Face's files.

use std::f32::consts::TAU;

use candle_core::{D, Device, Result, Tensor};
use serde::Deserialize;

/// How the frequencies of rotation follow from the place in a head's vector.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct RopeParameters {
    /// `default`, `linear` or `llama3`.
    #[serde(alias = "type")]
    pub rope_type: Option<String>,
    /// The base of the frequencies.
    pub rope_theta: Option<f64>,
    /// What slow frequencies are divided by.
    pub factor: Option<f64>,
    /// `llama3`: slow are those with fewer turns than this within the original length.
    pub low_freq_factor: Option<f64>,
    /// `llama3`: fast are those with more turns than this; they stay.
    pub high_freq_factor: Option<f64>,
    /// `llama3`: the length of the pre-training.
    pub original_max_position_embeddings: Option<usize>,
}

/// Angles for each position and each half of a head's vector.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotary {
    frequencies: Vec<f32>,
}

impl Rotary {
    /// For heads of width `d`. `theta` is the base where the parameters have none.
    pub(crate) fn new(
        d: usize,
        theta: f64,
        parameters: &RopeParameters,
    ) -> std::result::Result<Self, String> {
        let theta = parameters.rope_theta.unwrap_or(theta);
        if d == 0 || !d.is_multiple_of(2) {
            return Err(format!(
                "head_dim is {d}, but rotary embeddings need an even number"
            ));
        }
        if !(theta.is_finite() && theta > 0.0) {
            return Err(format!("rope_theta is {theta}, but it must be above 0"));
        }
        let power = |k: usize| theta.powf(-2.0 * k as f64 / d as f64) as f32;
        let mut frequencies: Vec<f32> = (0..d / 2).map(power).collect();
        let positive = |name: &str, value: Option<f64>| match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value as f32),
            Some(value) => Err(format!("rope's {name} is {value}, but it must be above 0")),
            None => Err(format!("rope's {name} is missing")),
        };
        match parameters.rope_type.as_deref() {
            None | Some("default") => {}
            Some("linear") => {
                let factor = positive("factor", parameters.factor)?;
                frequencies.iter_mut().for_each(|one| *one /= factor);
            }
            Some("llama3") => {
                let factor = positive("factor", parameters.factor)?;
                let low = positive("low_freq_factor", parameters.low_freq_factor)?;
                let high = positive("high_freq_factor", parameters.high_freq_factor)?;
                let length = parameters.original_max_position_embeddings;
                let length = positive(
                    "original_max_position_embeddings",
                    length.map(|length| length as f64),
                )?;
                if low >= high {
                    return Err(format!(
                        "rope's low_freq_factor is {low}, but it must be below high_freq_factor = {high}"
                    ));
                }
                for one in &mut frequencies {
                    // 0 for slow, 1 for fast, linear between.
                    let turns = length * *one / TAU;
                    let fast = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    *one *= (1.0 - fast) / factor + fast;
                }
            }
            Some(other) => {
                return Err(format!(
                    "rope_type is `{other}`, but the supported ones are default, linear and llama3"
                ));
            }
        }
        Ok(Rotary { frequencies })
    }

    /// Cosine and sine for positions 0 to T - 1; each T x d.
    pub(crate) fn tables(&self, positions: usize, device: &Device) -> Result<[Tensor; 2]> {
        let half = self.frequencies.len();
        let frequencies = Tensor::from_slice(&self.frequencies, (1, half), device)?;
        let places: Vec<f32> = (0..positions).map(|place| place as f32).collect();
        let places = Tensor::from_vec(places, (positions, 1), device)?;
        let angles = places.matmul(&frequencies)?;
        let angles = Tensor::cat(&[&angles, &angles], 1)?;
        Ok([angles.cos()?, angles.sin()?])
    }
}

/// Each pair of x, N x h x T x d, turned by its angle.
pub(crate) fn rotate(x: &Tensor, [cos, sin]: &[Tensor; 2]) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (first, second) = (
        x.narrow(D::Minus1, 0, half)?,
        x.narrow(D::Minus1, half, half)?,
    );
    let turned = Tensor::cat(&[&second.neg()?, &first], D::Minus1)?;
    x.broadcast_mul(cos)? + turned.broadcast_mul(sin)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_kinds_are_refused_by_name() {
        let yarn = RopeParameters {
            rope_type: Some("yarn".into()),
            ..Default::default()
        };
        let error = Rotary::new(4, 1e4, &yarn).unwrap_err();
        assert!(error.contains("rope_type is `yarn`"), "{error}");
        let error = Rotary::new(3, 1e4, &RopeParameters::default()).unwrap_err();
        assert!(error.contains("head_dim is 3"), "{error}");
    }
}
