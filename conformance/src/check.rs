//! Everything that a subject can be held against, under one roof: a check takes a subject, a case
//! and a method and returns a ratio.

use lora_pro_core::{DType, Error, Method};
use proptest::strategy::{BoxedStrategy, Just, Strategy};

use crate::laws::{LAWS, Law, METHODS};
use crate::sample::CaseSpec;
use crate::subject::Subject;
use crate::vectors::follow;
use crate::{cases, options, sample, smoke};

/// One check.
#[derive(Clone, Copy)]
pub enum Check {
    /// Whether there is an optimizer at all: tells a broken harness from a wrong implementation.
    Smoke(&'static smoke::Smoke),
    /// A law of LoRA-Pro.
    Law(&'static Law),
    /// Trajectories that are recorded, to be followed in f64.
    Vectors,
    /// The reference, step by step from the same bits, with options drawn at random.
    Differential,
}

impl Check {
    /// All of them, in the order in which they run.
    pub fn all() -> Vec<Check> {
        let smoke = smoke::SMOKE.iter().map(Check::Smoke);
        let laws = LAWS.iter().map(Check::Law);
        // Where only the program is installed there are no recordings.
        let vectors = follow::available().then_some(Check::Vectors);
        let all = smoke.chain(laws).chain(vectors);
        all.chain([Check::Differential]).collect()
    }

    /// Its name in records and on the command line.
    pub fn id(&self) -> String {
        match self {
            Check::Smoke(smoke) => format!("smoke-{}", smoke.name),
            Check::Law(law) => law.id(),
            Check::Vectors => "vectors".into(),
            Check::Differential => "differential".into(),
        }
    }

    /// What holds, in one line.
    pub fn title(&self) -> &'static str {
        match self {
            Check::Smoke(smoke) => smoke.what,
            Check::Law(law) => law.formula,
            Check::Vectors => "recorded trajectories are followed to 1e-10",
            Check::Differential => "every number of a step is the reference's, up to rounding",
        }
    }

    /// The methods that it is about.
    pub fn methods(&self) -> &'static [Method] {
        match self {
            Check::Law(law) => law.methods,
            _ => &METHODS,
        }
    }

    /// Whether it is run in a storage type. In 16 bits u kappa^2 leaves the laws no digit to look
    /// at; there the subject is compared with the reference in the same type.
    pub fn takes(&self, dtype: DType) -> bool {
        match self {
            Check::Law(_) => matches!(dtype, DType::F64 | DType::F32),
            Check::Vectors => dtype == DType::F64,
            _ => dtype != DType::U8,
        }
    }

    /// Random cases.
    pub fn cases(&self, dtype: DType, method: Method) -> BoxedStrategy<CaseSpec> {
        match self {
            Check::Smoke(_) => cases::plain(),
            Check::Law(law) => cases::cases(law.applies, dtype, method),
            Check::Vectors => Just(CaseSpec::default()).boxed(),
            Check::Differential => cases::moderate(dtype),
        }
    }

    /// Whether its cases are all there is, and one try is enough.
    pub fn is_fixed(&self) -> bool {
        matches!(self, Check::Vectors)
    }

    /// The ratio of one case; below the threshold the check holds.
    ///
    /// # Errors
    /// What the subject refuses and should not; [`Error::Unsupported`] where it does not do what
    /// the check is about.
    pub fn ratio(&self, subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
        let spec = CaseSpec {
            dtype: subject.dtype,
            ..*spec
        };
        match self {
            Check::Smoke(smoke) => smoke.ratio(subject, &spec, method),
            Check::Law(law) => law.ratio(subject, &spec, method),
            Check::Vectors => Ok(follow::worst(subject, method)?.0),
            Check::Differential => Ok(options::compare(subject, &spec, method)?.ratio),
        }
    }

    /// What is worst about a case that fails, where the check can say it.
    pub fn explain(&self, subject: &Subject, spec: &CaseSpec, method: Method) -> Option<String> {
        match self {
            Check::Vectors => return Some(follow::worst(subject, method).ok()?.1),
            Check::Differential => {}
            _ => return None,
        }
        let spec = CaseSpec {
            dtype: subject.dtype,
            ..*spec
        };
        let finding = options::compare(subject, &spec, method).ok()?;
        let config = options::sampled(&spec, method).config;
        let options = serde_json::to_string(&config).ok()?;
        Some(format!("{}, with {options}", finding.worst))
    }

    /// Every branch and option that its cases could exercise.
    pub fn all_features(&self) -> Vec<&'static str> {
        let options: &[&str] = match self {
            Check::Vectors => return vec![],
            Check::Differential => &options::FEATURES,
            _ => &[],
        };
        sample::FEATURES.iter().chain(options).copied().collect()
    }

    /// The branches and options that a case exercises, for the coverage table.
    pub fn features(&self, spec: &CaseSpec, method: Method) -> Vec<String> {
        if let Check::Vectors = self {
            return vec![];
        }
        let mut features = spec.features();
        if let Check::Differential = self {
            features.extend(options::features(spec, method));
        }
        features
    }
}
