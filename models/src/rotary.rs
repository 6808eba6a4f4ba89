//! Rotary position embeddings: Su et al., "RoFormer", <https://arxiv.org/abs/2104.09864>. Halves of a
//! head's vector are paired, as in Hugging Face's files.

use std::f32::consts::TAU;

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

/// How fast each pair of a head's vector turns from position to position.
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

    /// For positions 0 to `positions` - 1.
    pub(crate) fn angles(&self, positions: usize) -> Angles {
        let angle = |position| {
            let turns = self.frequencies.iter();
            turns.map(move |frequency| position as f32 * frequency)
        };
        let all: Vec<f32> = (0..positions).flat_map(angle).collect();
        Angles {
            pairs: self.frequencies.len(),
            cos: all.iter().map(|angle| angle.cos()).collect(),
            sin: all.iter().map(|angle| angle.sin()).collect(),
        }
    }
}

/// Cosine and sine of the angles for each position and each pair of a head's vector.
#[derive(Debug)]
pub(crate) struct Angles {
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Whether they are for so many positions and heads of this width.
    pub(crate) fn fit(&self, positions: usize, width: usize) -> bool {
        self.cos.len() == positions * self.pairs && width == 2 * self.pairs
    }

    /// Turns a head's vector.
    pub(crate) fn turn(&self, vector: &mut [f32], position: usize) {
        self.rotate(vector, position, 1.0);
    }

    /// Undoes [`Angles::turn`], which is what a gradient's way back does.
    pub(crate) fn turn_back(&self, vector: &mut [f32], position: usize) {
        self.rotate(vector, position, -1.0);
    }

    fn rotate(&self, vector: &mut [f32], position: usize, direction: f32) {
        let place = position * self.pairs..(position + 1) * self.pairs;
        let angles = self.cos[place.clone()].iter().zip(&self.sin[place]);
        let (first, second) = vector.split_at_mut(self.pairs);
        for ((x, y), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
            let sin = direction * sin;
            (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
        }
    }
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
