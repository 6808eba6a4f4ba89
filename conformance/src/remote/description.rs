//! What a child says that it can do, and what follows from it before it is asked.

use lora_pro_core::backend::{Control, StateKind};
use lora_pro_core::{DType, Damping, Determinism, Hyper, Manifest, Method, Rounding, XChoice};
use serde::{Deserialize, Serialize};

use crate::laws::METHODS;
use crate::record::Stability;

/// The answer to `describe`. What is not listed is not asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Name of the implementation.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The device, in words.
    pub device: String,
    /// Storage types of A, B and gradients.
    pub dtypes: Vec<DType>,
    /// Storage types of state tensors.
    #[serde(default = "usual_moments")]
    pub moment_dtypes: Vec<DType>,
    /// How 16-bit parameters are rounded.
    #[serde(default = "usual_roundings")]
    pub roundings: Vec<Rounding>,
    /// Type in which r x r matrices are accumulated and solved.
    #[serde(default = "usual_accumulate")]
    pub accumulate: DType,
    /// Threads.
    #[serde(default = "one")]
    pub threads: usize,
    /// The methods.
    pub methods: Vec<Method>,
    /// The choices of X.
    pub x: Vec<XChoice>,
    /// The dampings: a kind (`absolute`: with any number) or a kind and the only number that is
    /// there (`absolute 1e-8`).
    pub dampings: Vec<String>,
    /// The options.
    #[serde(default)]
    pub options: Vec<Opt>,
    /// State tensors that answers hold, and that `load` takes, by their names in a checkpoint.
    #[serde(default)]
    pub state: Vec<String>,
    /// How errors grow with the condition number, as the child claims.
    pub stability: Stability,
    /// How far it promises to repeat itself.
    pub determinism: Determinism,
}

/// Defines [`Opt`] with the words of messages, so that nothing can be left out of a list.
macro_rules! options {
    ($($(#[$doc:meta])+ $option:ident = $word:literal,)+) => {
        /// What a child may or may not have beside the plain optimizers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Opt {$(
            $(#[$doc])+
            #[serde(rename = $word)]
            $option,
        )+}

        impl Opt {
            /// All of them.
            pub const ALL: &[Opt] = &[$(Opt::$option),+];

            /// As it is written in messages.
            pub fn name(self) -> &'static str {
                match self {$(
                    Opt::$option => $word,
                )+}
            }
        }
    };
}

options! {
    /// The maximum of the second moment is kept.
    Amsgrad = "amsgrad",
    /// Ascent.
    Maximize = "maximize",
    /// Decoupled weight decay.
    WeightDecay = "weight_decay",
    /// Weight decay of W0.
    DecayBase = "decay_base",
    /// A learning rate of B that is not A's.
    LrRatio = "lr_ratio",
    /// A factor on learning rates that changes from step to step.
    LrFactor = "lr_factor",
    /// Momentum of SGD.
    Momentum = "momentum",
    /// The clip of updates.
    UpdateClip = "update_clip",
    /// The clip of gradients by their global norm.
    MaxGradNorm = "max_grad_norm",
    /// A factor on gradients.
    GradScale = "grad_scale",
    /// Steps whose gradients are not finite can be skipped.
    Skip = "skip",
    /// Unpaired parameters.
    Unpaired = "unpaired",
}

/// Names of all state tensors that there are, each once: the moments of an unpaired parameter are
/// called like those of a weight.
fn state_names() -> impl Iterator<Item = &'static str> {
    let named = StateKind::ALL.into_iter();
    let named = named.filter(|kind| !matches!(kind, StateKind::Param(_)));
    named.map(StateKind::name)
}

impl Description {
    /// Of a Rust backend, which has every method, choice and option.
    pub fn of(manifest: &Manifest, stability: Stability) -> Self {
        Description {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            device: manifest.device.clone(),
            dtypes: manifest.dtypes.clone(),
            moment_dtypes: manifest.state_dtypes.clone(),
            roundings: manifest.roundings.clone(),
            accumulate: manifest.accumulator_dtype,
            threads: manifest.threads,
            methods: METHODS.to_vec(),
            x: vec![XChoice::Sylvester, XChoice::Symmetric, XChoice::Zero],
            dampings: DAMPINGS.map(String::from).to_vec(),
            options: Opt::ALL.to_vec(),
            state: state_names().map(String::from).collect(),
            stability,
            determinism: manifest.determinism,
        }
    }

    /// The manifest of a backend that is this.
    pub fn manifest(&self) -> Manifest {
        Manifest::new(&self.name, &self.version)
            .device(&self.device)
            .dtypes(self.dtypes.clone())
            .state_dtypes(self.moment_dtypes.clone())
            .roundings(self.roundings.clone())
            .accumulator_dtype(self.accumulate)
            .code_path("unknown")
            .threads(self.threads)
            .determinism(self.determinism)
    }

    /// Rejects words that mean nothing, which would otherwise be claims that are never tested.
    pub(super) fn validate(&self) -> Result<(), String> {
        for damping in &self.dampings {
            if !DAMPINGS.contains(&damping.as_str()) {
                damping
                    .parse::<Damping>()
                    .map_err(|error| error.to_string())?;
            }
        }
        let mut state = self.state.iter();
        match state.find(|name| !state_names().any(|known| known == name.as_str())) {
            Some(name) => Err(format!("`{name}` is no state tensor")),
            None => Ok(()),
        }
    }

    /// Whether the child shows the state tensor called `name`.
    pub fn exposes(&self, name: &str) -> bool {
        self.state.iter().any(|exposed| exposed == name)
    }

    /// What the hyper-parameters need that the child does not have.
    pub fn lacks(&self, hyper: &Hyper) -> Option<String> {
        if !self.methods.contains(&hyper.method) {
            return Some(format!("method {}", hyper.method));
        }
        // Plain LoRA inverts nothing and has no X.
        let adjusts = hyper.method != Method::Lora;
        if adjusts && !self.x.contains(&hyper.x) {
            return Some(format!("the {} X", hyper.x));
        }
        if adjusts && !self.damps(hyper.damping) {
            return Some(format!("damping {:?}", hyper.damping));
        }
        self.first_missing(&[
            (hyper.amsgrad, Opt::Amsgrad),
            (hyper.maximize, Opt::Maximize),
            (hyper.weight_decay != 0.0, Opt::WeightDecay),
            (hyper.decay_base, Opt::DecayBase),
            (hyper.lr_ratio != 1.0, Opt::LrRatio),
            (hyper.momentum != 0.0, Opt::Momentum),
            (hyper.update_clip.is_some(), Opt::UpdateClip),
        ])
    }

    /// What the whole step needs that the child does not have.
    pub fn lacks_for(&self, control: &Control, params: usize) -> Option<String> {
        self.first_missing(&[
            (control.lr_factor != 1.0, Opt::LrFactor),
            (control.grad_scale != 1.0, Opt::GradScale),
            (control.max_grad_norm.is_some(), Opt::MaxGradNorm),
            (
                control.on_non_finite == lora_pro_core::OnNonFinite::Skip,
                Opt::Skip,
            ),
            (params > 0, Opt::Unpaired),
        ])
    }

    fn first_missing(&self, needed: &[(bool, Opt)]) -> Option<String> {
        let missing = |(needed, option): &&(bool, Opt)| *needed && !self.options.contains(option);
        let (_, option) = needed.iter().find(missing)?;
        Some(format!("option {}", option.name()))
    }

    fn damps(&self, damping: Damping) -> bool {
        let kind = match damping {
            Damping::None => "none",
            Damping::Absolute(_) => "absolute",
            Damping::Relative(_) => "relative",
            Damping::Cutoff(_) => "cutoff",
        };
        let claims = |claim: &String| claim == kind || claim.parse().ok() == Some(damping);
        self.dampings.iter().any(claims)
    }
}

const DAMPINGS: [&str; 4] = ["none", "absolute", "relative", "cutoff"];

fn usual_moments() -> Vec<DType> {
    vec![DType::F64, DType::F32]
}

fn usual_roundings() -> Vec<Rounding> {
    vec![Rounding::Nearest]
}

fn usual_accumulate() -> DType {
    DType::F64
}

fn one() -> usize {
    1
}
