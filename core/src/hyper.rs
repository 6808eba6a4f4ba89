//! The hyper-parameters of one group of adapters, and what their values mean.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Which optimizer steps an adapter.
///
/// This enum and the others of [`Hyper`] are exhaustive on purpose: a new variant is a compile error
/// in every place, of this project and of other backends, that has to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// AdamW on the raw gradients of A and B: plain LoRA, for comparison.
    Lora,
    /// Gradient descent along the adjusted (dA, dB), with optional momentum.
    Sgd,
    /// AdamW on A and B, each fed with its adjusted gradient. State 2 r (m + n).
    Efficient,
    /// The full mode without its m x n moments. State r (m + n) + m + n.
    Factored,
    /// Adam on the equivalent gradient E, m x n. State 2 m n.
    Full,
}

/// The free r x r matrix X of the closed form; E does not depend on it (law 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XChoice {
    /// (dA, dB) nearest to (gA, gB): `SB X + X SA = -U A'`. The paper's choice.
    Sylvester,
    /// `X = -(1 / 2 s^2) SB^+ B' gB SA^+`: the shared component split equally.
    Symmetric,
    /// `X = 0`.
    Zero,
}

/// How the inverse of a Gram matrix is kept bounded.
///
/// Applied wherever SA and SB are inverted, and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Damping {
    /// The pseudo-inverse; only eigenvalues below rounding count as zero. Not for the factored
    /// mode with a rank above that of the gradient: B then stays nearly singular, and a run with
    /// rank 16 and batches of 4 diverged.
    None,
    /// `(S + d I)^-1`. The public code has d = 1e-8. Not scale-free.
    Absolute(f64),
    /// `(S + c lambda_max I)^-1`. Scale-free.
    Relative(f64),
    /// The pseudo-inverse with eigenvalues up to `c lambda_max` counted as zero. Scale-free.
    Cutoff(f64),
}

/// Storage of the full mode's two m x n moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MomentDType {
    /// f64 where the parameters are f64, else f32.
    Auto,
    /// 64-bit.
    F64,
    /// 32-bit.
    F32,
    /// bfloat16.
    Bf16,
    /// 8-bit floating-point codes with one f32 scale for each block of [`crate::backend::MOMENT_BLOCK`]
    /// entries, rounded stochastically.
    #[serde(rename = "8bit")]
    EightBit,
}

/// How an update reaches parameters that are stored in 16 bits. In a bf16 number an update of
/// less than 1/512 of it is lost when the sum is rounded to nearest. f32 and f64 parameters are
/// rounded to nearest whatever is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// To the nearest number.
    Nearest,
    /// Up or down at random, so that the mean is exact. The random numbers follow from the
    /// adapter's name, the step and the entry: a run repeats itself to the last bit.
    Stochastic,
    /// An f32 copy of A and B is kept with the state, and the parameters are its rounding to
    /// nearest. A parameter that differs from that rounding was changed by the caller, and wins.
    #[serde(rename = "master")]
    MasterCopy,
}

/// The hyper-parameters of one group. See [`crate::Preset`] for where values come from.
///
/// Start from the default (the preset `recommended`) or from a preset, and change what differs:
///
/// ```
/// use lora_pro_core::{Hyper, Method, Preset};
/// let hyper = Hyper::default().lr(1e-3).update_clip(Some(0.5));
/// assert_eq!(hyper.lr, 1e-3);
/// let paper = Preset::Paper.hyper().method(Method::Efficient);
/// assert!(paper.validate("the optimizer").is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Hyper {
    /// The optimizer.
    pub method: Method,
    /// The choice of X.
    pub x: XChoice,
    /// The damping of Gram inverses.
    pub damping: Damping,
    /// Learning rate, at least 0.
    pub lr: f64,
    /// Learning rate of B over that of A, positive (LoRA+, 2402.12354, has 16).
    pub lr_ratio: f64,
    /// Decay rate of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay rate of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment, positive.
    pub eps: f64,
    /// Decoupled weight decay, at least 0; 0 for [`Method::Sgd`], whose definition has none.
    pub weight_decay: f64,
    /// Let weight decay also shrink W0, as full fine-tuning would; W0 is then an input.
    pub decay_base: bool,
    /// Momentum of [`Method::Sgd`], in [0, 1).
    pub momentum: f64,
    /// Keep the maximum of the second moment (AMSGrad).
    pub amsgrad: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
    /// Trust region: the pair's update is scaled so that, on the factor with the larger norm,
    /// |update| is at most this times |factor|. `None` leaves updates alone.
    pub update_clip: Option<f64>,
    /// Storage of the full mode's moments.
    pub moment_dtype: MomentDType,
    /// How 16-bit parameters are rounded.
    pub rounding: Rounding,
}

/// One method for each field: the same hyper-parameters with that field replaced.
macro_rules! with_fields {
    ($($field:ident: $type:ty),+ $(,)?) => {
        impl Hyper {
            $(
                #[doc = concat!("With another [`Hyper::", stringify!($field), "`](#structfield.", stringify!($field), ").")]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

with_fields!(
    method: Method,
    x: XChoice,
    damping: Damping,
    lr: f64,
    lr_ratio: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    decay_base: bool,
    momentum: f64,
    amsgrad: bool,
    maximize: bool,
    update_clip: Option<f64>,
    moment_dtype: MomentDType,
    rounding: Rounding,
);

impl Hyper {
    /// Refuses NaN and out-of-range values; `subject` is who they were given for (law 18).
    pub fn validate(&self, subject: &str) -> Result<(), Error> {
        let unit = |x: f64| (0.0..1.0).contains(&x);
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let at_least_0 = |x: f64| x.is_finite() && x >= 0.0;
        check(subject, "lr", self.lr, at_least_0, "finite and at least 0")?;
        check(
            subject,
            "lr_ratio",
            self.lr_ratio,
            positive,
            "positive and finite",
        )?;
        check(subject, "beta1", self.beta1, unit, "in [0, 1)")?;
        check(subject, "beta2", self.beta2, unit, "in [0, 1)")?;
        check(subject, "eps", self.eps, positive, "positive and finite")?;
        check(
            subject,
            "weight_decay",
            self.weight_decay,
            at_least_0,
            "finite and at least 0",
        )?;
        check(subject, "momentum", self.momentum, unit, "in [0, 1)")?;
        if let Some(clip) = self.update_clip {
            check(
                subject,
                "update_clip",
                clip,
                positive,
                "positive and finite",
            )?;
        }
        self.damping.validate(subject)?;
        self.validate_combination(subject)
    }

    /// Refuses options that the method has no use for, rather than ignoring them.
    fn validate_combination(&self, subject: &str) -> Result<(), Error> {
        let sgd = self.method == Method::Sgd;
        if sgd && self.amsgrad {
            return Err(Error::invalid(
                subject,
                "amsgrad",
                true,
                "false: method sgd has no second moment",
            ));
        }
        if sgd && self.weight_decay != 0.0 {
            let expected = "0: method sgd has no weight decay";
            return Err(Error::invalid(
                subject,
                "weight_decay",
                self.weight_decay,
                expected,
            ));
        }
        if !sgd && self.momentum != 0.0 {
            let expected = "0: only method sgd has momentum, the others have beta1";
            return Err(Error::invalid(subject, "momentum", self.momentum, expected));
        }
        let decay = self.lr * self.lr_ratio.max(1.0) * self.weight_decay;
        if decay > 1.0 {
            return Err(Error::invalid(
                subject,
                "lr * weight_decay",
                decay,
                "at most 1",
            ));
        }
        Ok(())
    }
}

fn check(
    subject: &str,
    field: &'static str,
    value: f64,
    holds: impl Fn(f64) -> bool,
    expected: &str,
) -> Result<(), Error> {
    if holds(value) {
        return Ok(());
    }
    Err(Error::invalid(subject, field, value, expected))
}

impl Damping {
    fn validate(self, subject: &str) -> Result<(), Error> {
        match self {
            Damping::None => Ok(()),
            Damping::Absolute(d) => check(
                subject,
                "damping (absolute)",
                d,
                |d| d.is_finite() && d > 0.0,
                "positive and finite",
            ),
            Damping::Relative(c) => check(
                subject,
                "damping (relative)",
                c,
                |c| c > 0.0 && c < 1.0,
                "in (0, 1)",
            ),
            Damping::Cutoff(c) => check(
                subject,
                "damping (cutoff)",
                c,
                |c| c > 0.0 && c < 1.0,
                "in (0, 1)",
            ),
        }
    }
}

/// Parses `none`, `absolute 1e-8`, `relative:1e-6` or `cutoff=1e-10`.
///
/// ```
/// use lora_pro_core::Damping;
/// assert_eq!("absolute 1e-8".parse::<Damping>()?, Damping::Absolute(1e-8));
/// assert!("absolute".parse::<Damping>().is_err());
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
impl FromStr for Damping {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut words = text.splitn(2, [' ', ':', '=']);
        let kind = words.next().unwrap_or_default();
        let number = words.next().map(|word| word.trim().parse::<f64>());
        match (kind, number) {
            ("none", None) => Ok(Damping::None),
            ("absolute", Some(Ok(d))) => Ok(Damping::Absolute(d)),
            ("relative", Some(Ok(c))) => Ok(Damping::Relative(c)),
            ("cutoff", Some(Ok(c))) => Ok(Damping::Cutoff(c)),
            _ => Err(Error::parse(
                "damping",
                text,
                "none, absolute:D, relative:C or cutoff:C",
            )),
        }
    }
}

/// Names of unit variants, the same on the command line, in files and in Python.
macro_rules! names {
    ($type:ty, $what:literal, $($name:literal => $variant:expr),+ $(,)?) => {
        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                match text {
                    $($name => Ok($variant),)+
                    _ => {
                        let names = [$($name),+].join(" ");
                        Err(Error::parse($what, text, format!("one of {names}")))
                    }
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $(if *self == $variant { return f.write_str($name); })+
                Ok(())
            }
        }
    };
}

names!(Method, "method",
    "lora" => Method::Lora, "sgd" => Method::Sgd, "efficient" => Method::Efficient,
    "factored" => Method::Factored, "full" => Method::Full);
names!(XChoice, "choice of X",
    "sylvester" => XChoice::Sylvester, "symmetric" => XChoice::Symmetric, "zero" => XChoice::Zero);
names!(MomentDType, "moment dtype",
    "auto" => MomentDType::Auto, "f64" => MomentDType::F64, "f32" => MomentDType::F32,
    "bf16" => MomentDType::Bf16, "8bit" => MomentDType::EightBit);
names!(Rounding, "rounding",
    "nearest" => Rounding::Nearest, "stochastic" => Rounding::Stochastic,
    "master" => Rounding::MasterCopy);
