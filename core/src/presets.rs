//! The two starting points: [`Preset::Paper`] for reproduction, [`Preset::Recommended`] for use.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Damping, Hyper, Method, MomentDType, XChoice};

/// A named set of hyper-parameters; every field can be changed afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// What the paper's algorithm and its public code do.
    Paper,
    /// What our experiments show to be robust and good.
    #[default]
    Recommended,
}

impl Preset {
    /// The hyper-parameters.
    pub fn hyper(self) -> Hyper {
        match self {
            Preset::Paper => PAPER,
            Preset::Recommended => RECOMMENDED,
        }
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "paper" => Ok(Preset::Paper),
            "recommended" => Ok(Preset::Recommended),
            _ => Err(format!(
                "`{text}` is not a preset: use one of paper recommended"
            )),
        }
    }
}

/// AdamW's usual numbers, and the public code's absolute damping of both Gram matrices.
const PAPER: Hyper = Hyper {
    method: Method::Full,
    x: XChoice::Sylvester,
    damping: Damping::Absolute(1e-8),
    lr: 2e-5,
    lr_ratio: 1.0,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.0,
    decay_base: false,
    momentum: 0.0,
    amsgrad: false,
    maximize: false,
    update_clip: None,
    moment_dtype: MomentDType::Auto,
};

/// Factored mode, which follows the full mode at LoRA's memory.
const RECOMMENDED: Hyper = Hyper {
    method: Method::Factored,
    lr: 5e-4,
    ..PAPER
};
