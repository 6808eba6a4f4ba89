//! What a child says that it can do, and what follows from it before it is asked.

use lora_pro_core::backend::Control;
use lora_pro_core::{DType, Damping, Determinism, Hyper, Manifest, Method, Rounding, XChoice};
use serde::{Deserialize, Serialize};

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

/// What a child may or may not have beside the plain optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opt {
    /// The maximum of the second moment is kept.
    Amsgrad,
    /// Ascent.
    Maximize,
    /// Decoupled weight decay.
    WeightDecay,
    /// Weight decay of W0.
    DecayBase,
    /// A learning rate of B that is not A's.
    LrRatio,
    /// A factor on learning rates that changes from step to step.
    LrFactor,
    /// Momentum of SGD.
    Momentum,
    /// The clip of updates.
    UpdateClip,
    /// The clip of gradients by their global norm.
    MaxGradNorm,
    /// A factor on gradients.
    GradScale,
    /// Steps whose gradients are not finite can be skipped.
    Skip,
    /// Parameters without a pair.
    Unpaired,
}

impl Opt {
    /// All of them.
    pub const ALL: [Opt; 12] = [
        Opt::Amsgrad,
        Opt::Maximize,
        Opt::WeightDecay,
        Opt::DecayBase,
        Opt::LrRatio,
        Opt::LrFactor,
        Opt::Momentum,
        Opt::UpdateClip,
        Opt::MaxGradNorm,
        Opt::GradScale,
        Opt::Skip,
        Opt::Unpaired,
    ];

    /// As it is written in messages.
    pub fn name(self) -> &'static str {
        match self {
            Opt::Amsgrad => "amsgrad",
            Opt::Maximize => "maximize",
            Opt::WeightDecay => "weight_decay",
            Opt::DecayBase => "decay_base",
            Opt::LrRatio => "lr_ratio",
            Opt::LrFactor => "lr_factor",
            Opt::Momentum => "momentum",
            Opt::UpdateClip => "update_clip",
            Opt::MaxGradNorm => "max_grad_norm",
            Opt::GradScale => "grad_scale",
            Opt::Skip => "skip",
            Opt::Unpaired => "unpaired",
        }
    }
}

/// Names of all state tensors that there are.
pub const STATE: [&str; 23] = [
    "exp_avg_a",
    "exp_avg_sq_a",
    "max_exp_avg_sq_a",
    "exp_avg_b",
    "exp_avg_sq_b",
    "max_exp_avg_sq_b",
    "momentum_a",
    "momentum_b",
    "exp_avg_y",
    "exp_avg_z",
    "row_sq",
    "col_sq",
    "max_row_sq",
    "max_col_sq",
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "exp_avg_scale",
    "exp_avg_sq_scale",
    "max_exp_avg_sq_scale",
    "master_a",
    "master_b",
    "master",
];

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
            methods: vec![
                Method::Lora,
                Method::Sgd,
                Method::Efficient,
                Method::Factored,
                Method::Full,
            ],
            x: vec![XChoice::Sylvester, XChoice::Symmetric, XChoice::Zero],
            dampings: DAMPINGS.map(String::from).to_vec(),
            options: Opt::ALL.to_vec(),
            state: STATE.map(String::from).to_vec(),
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

    /// Refuses words that mean nothing, which would otherwise be claims that nobody ever tests.
    pub(super) fn validate(&self) -> Result<(), String> {
        for damping in &self.dampings {
            if !DAMPINGS.contains(&damping.as_str()) {
                damping
                    .parse::<Damping>()
                    .map_err(|error| error.to_string())?;
            }
        }
        match self
            .state
            .iter()
            .find(|name| !STATE.contains(&name.as_str()))
        {
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

#[cfg(test)]
mod tests {
    use lora_pro_core::backend::{adapter_layout, param_layout};
    use lora_pro_core::{AdapterSpec, MomentDType, ParamSpec, Preset, Scale};

    use super::*;

    #[test]
    fn every_state_tensor_has_its_name_in_the_list() {
        let adapter = AdapterSpec::new("adapter", 4, 3, 2)
            .scale(Scale::Explicit(1.0))
            .dtype(DType::Bf16);
        let param = ParamSpec::new("bias", 1, 4).dtype(DType::Bf16);
        let all = Description::of(
            &Description::manifest(&serde_json::from_str(PLAIN).expect("valid")),
            Stability::Kappa,
        );
        for method in all.methods.clone() {
            let hyper = Preset::Paper
                .hyper()
                .method(method)
                .momentum(0.5)
                .amsgrad(true)
                .moment_dtype(MomentDType::EightBit)
                .rounding(Rounding::MasterCopy);
            let pair = adapter_layout(&adapter, &hyper);
            for tensor in pair.into_iter().chain(param_layout(&param, &hyper)) {
                assert!(all.exposes(tensor.name()), "{}", tensor.name());
            }
        }
    }

    /// The least that a child must say.
    const PLAIN: &str = r#"{ "name": "n", "version": "1", "device": "CPU", "dtypes": ["f64"],
        "methods": [], "x": [], "dampings": [], "stability": "kappa", "determinism": "bitwise" }"#;

    #[test]
    fn names_of_options_are_those_of_messages() {
        for option in Opt::ALL {
            let written = serde_json::to_value(option).expect("a word");
            assert_eq!(written, option.name());
        }
    }
}
